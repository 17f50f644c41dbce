//! Properties of the codec: what is written is read back, and no bytes whatever make it panic or loop.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use isthmus_bgp_packet::attribute::{Origin, flag};
use isthmus_bgp_packet::frame::{HEADER_LEN, MAX_LEN, MessageType};
use isthmus_bgp_packet::{
    Attributes, AttributesBuilder, Community, Context, Disposition, ExtendedCommunity, Family,
    LargeCommunity, Message, Notification, frame, write,
};
use proptest::prelude::*;

fn v4() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0..=32u8).prop_map(|(a, len)| Ipv4Net::new(a.into(), len).unwrap().trunc().into())
}

fn v6() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0..=128u8).prop_map(|(a, len)| Ipv6Net::new(a.into(), len).unwrap().trunc().into())
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let path = proptest::collection::vec(1..u32::MAX, 0..300);
    let communities = proptest::collection::vec(any::<u32>(), 0..20);
    let large = proptest::collection::vec(any::<(u32, u32, u32)>(), 0..10);
    let unknown = proptest::option::of((200..=254u8, proptest::collection::vec(any::<u8>(), 0..300)));
    let numbers = (
        0..3u8,
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        any::<Option<(u32, u32)>>(),
        any::<u64>(),
    );
    (path, communities, large, unknown, numbers).prop_map(|(path, communities, large, unknown, numbers)| {
        let (origin, med, local_pref, aggregator, extended) = numbers;
        let communities: Vec<_> = communities.into_iter().map(Community).collect();
        let large: Vec<_> = large
            .into_iter()
            .map(|(global, local1, local2)| LargeCommunity {
                global,
                local1,
                local2,
            })
            .collect();
        let mut builder = AttributesBuilder::originated(Origin::from_byte(origin).unwrap())
            .as_path(&path)
            .med(med)
            .local_pref(local_pref)
            .communities(&communities)
            .extended_communities(&[ExtendedCommunity(extended)])
            .large_communities(&large);
        if let Some((asn, id)) = aggregator {
            let value = [asn.max(1).to_be_bytes(), id.to_be_bytes()].concat();
            builder = builder.raw(flag::OPTIONAL | flag::TRANSITIVE, 7, value);
        }
        if let Some((kind, value)) = unknown {
            builder = builder.raw(flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL, kind, value);
        }
        builder.build()
    })
}

/// Reads a stream of UPDATEs: everything announced and withdrawn, and the attributes, which must be the same throughout.
type Routes = Vec<(IpNet, Option<IpAddr>)>;
fn read(stream: &[u8], as4: bool) -> (Routes, Vec<IpNet>, Option<Attributes>, usize) {
    let context = Context { as4, external: false };
    let (mut announced, mut withdrawn, mut attributes, mut messages) = (Vec::new(), Vec::new(), None, 0);
    let mut rest = stream;
    while !rest.is_empty() {
        let frame = frame::split(rest).unwrap().expect("whole messages");
        assert!(frame.len <= MAX_LEN);
        rest = &rest[frame.len..];
        messages += 1;
        let Message::Update(update) = Message::decode(frame, context).unwrap() else {
            panic!("an UPDATE")
        };
        assert_eq!(update.disposition(), Disposition::Accept, "{:?}", update.fault());
        for (prefixes, next_hop) in update.announced() {
            announced.extend(prefixes.map(|prefix| (prefix, next_hop.map(|n| n.address))));
            let mut canonical = Vec::new();
            update.canonical_attributes(&mut canonical);
            let these = Attributes::from_canonical(&canonical);
            assert_eq!(*attributes.get_or_insert_with(|| these.clone()), these);
        }
        withdrawn.extend(update.withdrawn().flatten());
    }
    (announced, withdrawn, attributes, messages)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn announcements_round_trip(
        attributes in attributes(),
        v4 in proptest::collection::vec(v4(), 1..1500),
        v6 in proptest::collection::vec(v6(), 1..500),
        as4 in any::<bool>(),
    ) {
        for (family, prefixes, next_hop) in [
            (Family::Ipv4Unicast, v4, IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))),
            (Family::Ipv6Unicast, v6, IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1))),
        ] {
            let mut out = Vec::new();
            let written = write::announce(&mut out, family, attributes.view(), next_hop, as4, prefixes.iter().copied());
            let Ok(written) = written else {
                prop_assert!(out.is_empty());
                continue;
            };
            let (announced, withdrawn, read_back, messages) = read(&out, as4);
            let expected: Vec<_> = prefixes.iter().map(|prefix| (*prefix, Some(next_hop))).collect();
            prop_assert_eq!(announced, expected);
            prop_assert!(withdrawn.is_empty());
            prop_assert_eq!(messages, written);
            let read_back = read_back.unwrap();
            if as4 {
                prop_assert_eq!(&read_back, &attributes);
            } else {
                // A 2-byte peer hides how a long path was cut into segments, but no AS of it.
                let asns = |a: &Attributes| a.view().as_path().asns().collect::<Vec<_>>();
                prop_assert_eq!(asns(&read_back), asns(&attributes));
                prop_assert_eq!(read_back.view().aggregator(), attributes.view().aggregator());
            }
        }
    }

    #[test]
    fn withdrawals_round_trip(v4 in proptest::collection::vec(v4(), 1..3000), v6 in proptest::collection::vec(v6(), 1..600)) {
        for (family, prefixes) in [(Family::Ipv4Unicast, v4), (Family::Ipv6Unicast, v6)] {
            let mut out = Vec::new();
            let written = write::withdraw(&mut out, family, prefixes.iter().copied());
            let (announced, withdrawn, _, messages) = read(&out, true);
            prop_assert!(announced.is_empty());
            prop_assert_eq!(withdrawn, prefixes);
            prop_assert_eq!(messages, written);
        }
    }

    #[test]
    fn any_bytes_are_survived(kind in 1..=5u8, body in proptest::collection::vec(any::<u8>(), 0..200), as4: bool, external: bool) {
        survive(kind, &body, Context { as4, external });
    }

    /// Good messages with a few bytes changed get deeper into the decoder than noise does.
    #[test]
    fn mutated_updates_are_survived(
        attributes in attributes(),
        prefixes in proptest::collection::vec(v6(), 0..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        context in (any::<bool>(), any::<bool>()),
    ) {
        let context = Context { as4: context.0, external: context.1 };
        for family in Family::ALL {
            let mut out = Vec::new();
            let list: Vec<IpNet> = match family {
                Family::Ipv4Unicast => vec!["203.0.113.0/24".parse().unwrap()],
                Family::Ipv6Unicast => prefixes.clone(),
            };
            let next_hop = IpAddr::from(Ipv6Addr::LOCALHOST);
            let _ = write::announce(&mut out, family, attributes.view(), next_hop, context.as4, list);
            if out.len() <= HEADER_LEN {
                continue;
            }
            let mut body = out[HEADER_LEN..].to_vec();
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            survive(2, &body, context);
            body.truncate(cut.index(body.len()));
            survive(2, &body, context);
        }
    }

    #[test]
    fn frames_are_cut_wherever_the_stream_is(sizes in proptest::collection::vec(0..500usize, 1..20), step in 1..700usize) {
        let mut stream = Vec::new();
        for size in &sizes {
            let start = frame::begin(&mut stream, MessageType::Update);
            stream.resize(start + 23 + size, 0);
            frame::finish(&mut stream, start);
        }
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for chunk in stream.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = frame::split(&buffer).unwrap() {
                found.push(frame.len - 23);
                let len = frame.len;
                buffer.drain(..len);
            }
        }
        prop_assert_eq!(found, sizes);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn notifications_round_trip(code: u8, subcode: u8, data in proptest::collection::vec(any::<u8>(), 0..5000), text in ".{0,300}") {
        for notification in [Notification::with_data(code, subcode, &data), Notification::cease_with_text(2, &text)] {
            let mut out = Vec::new();
            notification.encode(&mut out);
            let frame = frame::split(&out).unwrap().unwrap();
            prop_assert_eq!(&Notification::decode(frame.body).unwrap(), &notification);
            let _ = notification.to_string();
            let _ = notification.into_hard_reset().to_string();
        }
    }
}

/// Reads a message and walks over all of it.
fn survive(kind: u8, body: &[u8], context: Context) {
    let mut stream = vec![0xff; 16];
    stream.extend_from_slice(&u16::try_from(HEADER_LEN + body.len()).unwrap().to_be_bytes());
    stream.push(kind);
    stream.extend_from_slice(body);
    let Ok(Some(frame)) = frame::split(&stream) else {
        return;
    };
    let Ok(message) = Message::decode(frame, context) else {
        return;
    };
    if let Message::Update(update) = message {
        let mut canonical = Vec::new();
        update.canonical_attributes(&mut canonical);
        let attributes = Attributes::from_canonical(&canonical);
        let view = attributes.view();
        let _ = (
            view.as_path().to_string(),
            view.med(),
            view.communities().count(),
            format!("{view:?}"),
        );
        assert!(update.withdrawn().map(Iterator::count).sum::<usize>() <= body.len());
        for (prefixes, next_hop) in update.announced() {
            assert!(prefixes.count() <= body.len());
            assert!(next_hop.is_some() || update.disposition() == Disposition::TreatAsWithdraw);
        }
        if update.disposition() != Disposition::TreatAsWithdraw {
            assert!(view.iter().map(|a| a.kind).is_sorted(), "canonical order");
        }
    }
}

#[test]
fn bad_headers() {
    let header = |marker: u8, len: u16, kind: u8| {
        let mut out = vec![marker; 16];
        out.extend_from_slice(&len.to_be_bytes());
        out.push(kind);
        out
    };
    for (name, bytes, expected) in [
        ("marker", header(0xfe, 19, 4), (1, 1, vec![])),
        ("length 18", header(0xff, 18, 4), (1, 2, vec![0, 18])),
        ("length 4097", header(0xff, 4097, 2), (1, 2, vec![16, 1])),
        ("KEEPALIVE with a body", header(0xff, 20, 4), (1, 2, vec![0, 20])),
        ("OPEN too short", header(0xff, 28, 1), (1, 2, vec![0, 28])),
        ("UPDATE too short", header(0xff, 22, 2), (1, 2, vec![0, 22])),
        ("NOTIFICATION too short", header(0xff, 20, 3), (1, 2, vec![0, 20])),
        ("type 0", header(0xff, 19, 0), (1, 3, vec![0])),
        ("type 6", header(0xff, 19, 6), (1, 3, vec![6])),
    ] {
        let error = frame::split(&bytes).expect_err(name);
        assert_eq!((error.code, error.subcode, error.data), expected, "{name}");
    }
    assert_eq!(
        frame::split(&header(0xff, 19, 4)[..18]),
        Ok(None),
        "not yet a whole header"
    );
    assert_eq!(
        frame::split(&header(0xff, 29, 1)),
        Ok(None),
        "not yet a whole OPEN"
    );
}

#[test]
fn shutdown_texts() {
    let text = |data: &[u8]| Notification::with_data(6, 2, data).shutdown_text();
    assert_eq!(text(b"\x05hello").as_deref(), Some("hello"));
    assert_eq!(text(b"\xffshort").as_deref(), Some("short"), "a length that lies");
    assert_eq!(
        text(b"\x03a\nb").as_deref(),
        Some("a b"),
        "no control characters in logs"
    );
    assert_eq!(text(b"\x02\xff\xfe").as_deref(), Some("\u{fffd}\u{fffd}"));
    assert_eq!(text(b"\x00"), None);
    assert_eq!(
        Notification::with_data(6, 7, b"\x05hello").shutdown_text(),
        None,
        "only shutdown and reset have texts"
    );
    assert_eq!(
        Notification::cease_with_text(2, &"ä".repeat(200)).data.len(),
        255,
        "cut at a character"
    );
    let hard = Notification::cease_with_text(2, "bye").into_hard_reset();
    assert_eq!(
        hard.to_string(),
        "Hard Reset (6/9): Administrative Shutdown (6/2): bye"
    );
}
