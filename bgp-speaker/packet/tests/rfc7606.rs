//! What becomes of malformed UPDATEs from an external peer.
//!
//! ```text
//!  peer AS 65001 ── UPDATE: ORIGIN igp, AS_PATH 65001 65010, NEXT_HOP 192.0.2.1, <the case>, NLRI 203.0.113.0/24 ──▶ us
//! ```
//!
//! The table is the reaction matrix that was measured on seven other speakers, with the reaction that the RFCs ask for. Two rows
//! of it are not for the codec: the first AS of the path, and our own address as next hop, are checked by the engine.
use isthmus_bgp_packet::{Context, Disposition, Notification, Update};

const EXTERNAL: Context = Context {
    as4: true,
    external: true,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Used; the listed types are what the next speaker sees.
    Accept(Vec<u8>),
    /// Used, with a fault noted; the listed types are what the next speaker sees.
    Discard(Vec<u8>),
    /// Taken as withdrawn.
    Withdraw,
    /// The session ends with this UPDATE error subcode.
    Reset(u8),
}
use Outcome::{Accept, Discard, Reset, Withdraw};

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, kind];
    match u8::try_from(value.len()) {
        Ok(len) => out.push(len),
        Err(_) => {
            out[0] |= 0x10;
            out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(value);
    out
}

fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}
fn path() -> Vec<u8> {
    attribute(0x40, 2, &[2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xf2])
}
fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[192, 0, 2, 1])
}
const NLRI: [u8; 4] = [24, 203, 0, 113];

fn body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [withdrawn, attributes] {
        out.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
        out.extend_from_slice(field);
    }
    out.extend_from_slice(nlri);
    out
}

/// The usual attributes with one replaced (if `extra` has its type) or added.
fn with(kind: u8, extra: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    for usual in [origin(), path(), next_hop()] {
        if usual[1] != kind {
            list.extend(usual);
        } else {
            list.extend_from_slice(extra);
        }
    }
    if kind > 3 || kind == 0 {
        list.extend_from_slice(extra);
    }
    body(&[], &list, &NLRI)
}

fn one(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    with(kind, &attribute(flags, kind, value))
}

fn v6_reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, 2, 1, u8::try_from(next_hop.len()).unwrap()];
    value.extend_from_slice(next_hop);
    value.push(0);
    value.extend_from_slice(nlri);
    attribute(0x80, 14, &value)
}

const V6_NEXT_HOP: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const V6_NLRI: [u8; 5] = [32, 0x20, 1, 0xd, 0xb8];

fn outcome(body: &[u8], context: Context) -> Outcome {
    match Update::decode(body, context) {
        Err(Notification { code, subcode, .. }) => {
            assert_eq!(code, 3);
            Reset(subcode)
        }
        Ok(update) => {
            let mut canonical = Vec::new();
            update.canonical_attributes(&mut canonical);
            let kinds = isthmus_bgp_packet::AttributesView::new(&canonical)
                .iter()
                .map(|a| a.kind)
                .collect();
            match update.disposition() {
                Disposition::Accept => Accept(kinds),
                Disposition::AttributeDiscard => Discard(kinds),
                Disposition::TreatAsWithdraw => Withdraw,
            }
        }
    }
}

fn check(table: &[(&str, Vec<u8>, Outcome)], context: Context) {
    for (name, body, expected) in table {
        assert_eq!(&outcome(body, context), expected, "{name}");
    }
}

#[test]
fn origin_rows() {
    let twice = [origin(), attribute(0x40, 1, &[2])].concat();
    check(
        &[
            ("ORIGIN len 2", one(0x40, 1, &[0, 0]), Withdraw),
            ("ORIGIN value 5", one(0x40, 1, &[5]), Withdraw),
            ("ORIGIN flags optional+trans", one(0xc0, 1, &[0]), Withdraw),
            ("ORIGIN not transitive", one(0x00, 1, &[0]), Withdraw),
            ("ORIGIN missing", with(1, &[]), Withdraw),
            (
                "ORIGIN twice: the first counts",
                with(1, &twice),
                Discard(vec![1, 2]),
            ),
        ],
        EXTERNAL,
    );
}

#[test]
fn as_path_rows() {
    let asn = [0, 0, 0xfd, 0xe9];
    let segment = |kind: u8, count: u8, asns: &[[u8; 4]]| [vec![kind, count], asns.concat()].concat();
    let seq = segment(2, 1, &[asn]);
    check(
        &[
            ("seg type 9", one(0x40, 2, &segment(9, 1, &[asn])), Withdraw),
            ("seg count 0", one(0x40, 2, &segment(2, 0, &[])), Withdraw),
            ("overrun", one(0x40, 2, &segment(2, 2, &[asn])), Withdraw),
            (
                "trailing byte",
                one(0x40, 2, &[seq.clone(), vec![2]].concat()),
                Withdraw,
            ),
            (
                "contains AS 0",
                one(0x40, 2, &segment(2, 2, &[asn, [0; 4]])),
                Withdraw,
            ),
            ("missing", with(2, &[]), Withdraw),
            (
                "CONFED seg",
                one(0x40, 2, &[segment(3, 1, &[asn]), seq.clone()].concat()),
                Withdraw,
            ),
            (
                "AS_SET",
                one(0x40, 2, &[seq, segment(1, 1, &[asn])].concat()),
                Withdraw,
            ),
        ],
        EXTERNAL,
    );
}

#[test]
fn next_hop_and_number_rows() {
    check(
        &[
            ("NEXT_HOP len 3", one(0x40, 3, &[192, 0, 2]), Withdraw),
            ("NEXT_HOP 0.0.0.0", one(0x40, 3, &[0; 4]), Withdraw),
            ("NEXT_HOP multicast", one(0x40, 3, &[224, 0, 0, 1]), Withdraw),
            ("NEXT_HOP missing", with(3, &[]), Withdraw),
            ("MED len 3", one(0x80, 4, &[0; 3]), Withdraw),
            (
                "LOCAL_PREF from eBGP len 3",
                one(0x40, 5, &[0; 3]),
                Discard(vec![1, 2]),
            ),
            ("ATOMIC_AGG len 1", one(0x40, 6, &[0]), Discard(vec![1, 2])),
            ("AGGREGATOR len 5", one(0xc0, 7, &[0; 5]), Discard(vec![1, 2])),
            (
                "AGGREGATOR AS 0",
                one(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]),
                Discard(vec![1, 2]),
            ),
            (
                "ORIGINATOR_ID from eBGP",
                one(0x80, 9, &[1; 4]),
                Discard(vec![1, 2]),
            ),
            (
                "CLUSTER_LIST from eBGP len 5",
                one(0x80, 10, &[1; 5]),
                Discard(vec![1, 2]),
            ),
            (
                "AS4_PATH malformed first",
                with(2, &[attribute(0xc0, 17, &[9, 9]), path()].concat()),
                Discard(vec![1, 2]),
            ),
        ],
        EXTERNAL,
    );
}

#[test]
fn community_and_newer_rows() {
    let tunnel = [0, 1, 0, 20, 1, 2, 3];
    let sid = [1, 0, 7, 0, 0];
    check(
        &[
            ("COMMUNITY len 0", one(0xc0, 8, &[]), Withdraw),
            ("COMMUNITY len 5", one(0xc0, 8, &[0; 5]), Withdraw),
            ("EXT_COMM len 7", one(0xc0, 16, &[0; 7]), Withdraw),
            ("LARGE_COMM len 11", one(0xc0, 32, &[0; 11]), Withdraw),
            (
                "LARGE_COMM flag not transitive",
                one(0x80, 32, &[0; 12]),
                Withdraw,
            ),
            ("tunnel encap 23 garbage", one(0xc0, 23, &tunnel), Withdraw),
            (
                "tunnel encap 23 well formed",
                one(0xc0, 23, &[0, 1, 0, 3, 1, 1, 9]),
                Accept(vec![1, 2, 23]),
            ),
            ("prefix-SID 40 overrun", one(0xc0, 40, &sid), Discard(vec![1, 2])),
            ("AIGP bad len", one(0x80, 26, &[1, 0, 2]), Accept(vec![1, 2])),
            ("OTC 35 len 3", one(0xc0, 35, &[0; 3]), Withdraw),
            (
                "entropy 28 random",
                one(0xc0, 28, &[7; 5]),
                Accept(vec![1, 2, 28]),
            ),
            ("unknown well-known type 200", one(0x40, 200, &[1]), Reset(2)),
            (
                "unknown opt trans 201",
                one(0xc0, 201, &[1]),
                Accept(vec![1, 2, 201]),
            ),
            (
                "unknown opt non-trans 202",
                one(0x80, 202, &[1]),
                Accept(vec![1, 2]),
            ),
            ("attr type 0", one(0xc0, 0, &[1]), Discard(vec![1, 2])),
            (
                "attr 255 len 300 ext",
                one(0xc0, 255, &[7; 300]),
                Accept(vec![1, 2, 255]),
            ),
        ],
        EXTERNAL,
    );
}

#[test]
fn framing_rows() {
    let usual = [origin(), path(), next_hop()].concat();
    let overrun = [usual.clone(), vec![0xc0, 8, 8, 0, 0, 0, 1]].concat();
    let stray = [usual.clone(), vec![0xc0, 8]].concat();
    let mut too_long = body(&[], &usual, &NLRI);
    too_long[2..4].copy_from_slice(&[0xff, 0xff]);
    let mut wraps = body(&[], &usual, &NLRI);
    wraps[2..4].copy_from_slice(&[0xff, 0xfe]);
    let mut withdrawn_too_long = body(&[], &usual, &NLRI);
    withdrawn_too_long[..2].copy_from_slice(&[0xff, 0xff]);
    check(
        &[
            ("last attr overruns section", body(&[], &overrun, &NLRI), Withdraw),
            ("2 stray bytes in attrs", body(&[], &stray, &NLRI), Withdraw),
            ("total attr len > message", too_long, Reset(1)),
            ("total attr len 0xfffe", wraps, Reset(1)),
            ("withdrawn len > message", withdrawn_too_long, Reset(1)),
            ("NLRI but no attributes at all", body(&[], &[], &NLRI), Withdraw),
            (
                "NLRI len 33",
                body(&[], &usual, &[33, 203, 0, 113, 0, 0]),
                Reset(10),
            ),
            ("NLRI truncated", body(&[], &usual, &[24, 203, 0]), Reset(10)),
            (
                "withdrawn len 33",
                body(&[33, 1, 2, 3, 4, 5], &usual, &NLRI),
                Reset(10),
            ),
            (
                "NLRI 240/8 class E",
                body(&[], &usual, &[8, 240]),
                Accept(vec![1, 2]),
            ),
            (
                "NLRI host bits set",
                body(&[], &usual, &[20, 203, 0, 127]),
                Accept(vec![1, 2]),
            ),
            (
                "broken framing, no reachable NLRI",
                body(&NLRI, &stray, &[]),
                Reset(1),
            ),
            (
                "bad MED, no reachable NLRI",
                body(&[], &one(0x80, 4, &[0; 3])[4..24], &[]),
                Reset(1),
            ),
        ],
        EXTERNAL,
    );
}

#[test]
fn multiprotocol_rows() {
    let basic = |mp: &[u8]| [mp.to_vec(), origin(), path()].concat();
    let good = v6_reach(&V6_NEXT_HOP, &V6_NLRI);
    let truncated = attribute(0x80, 14, &[0, 2, 1, 16, 0x20, 1]);
    let unreach = attribute(0x80, 15, &[0, 2, 1, 129, 0]);
    let foreign = attribute(0x80, 14, &[0x03, 0xe7, 1, 4, 1, 2, 3, 4, 0, 8, 10]);
    let unspecified = v6_reach(&[0; 16], &V6_NLRI);
    check(
        &[
            ("MP_REACH v6", body(&[], &basic(&good), &[]), Accept(vec![1, 2])),
            (
                "MP_REACH v6 nh len 9",
                body(&[], &basic(&v6_reach(&[1; 9], &V6_NLRI)), &[]),
                Reset(9),
            ),
            (
                "MP_REACH v6 nh len 4",
                body(&[], &basic(&v6_reach(&[1; 4], &V6_NLRI)), &[]),
                Reset(9),
            ),
            ("MP_REACH truncated", body(&[], &basic(&truncated), &[]), Reset(9)),
            (
                "MP_REACH empty",
                body(&[], &basic(&attribute(0x80, 14, &[])), &[]),
                Reset(9),
            ),
            (
                "MP_REACH twice",
                body(&[], &basic(&[good.clone(), good.clone()].concat()), &[]),
                Reset(1),
            ),
            ("MP_UNREACH bad prefix len", body(&[], &unreach, &[]), Reset(9)),
            ("MP_REACH unknown AFI 999", with(14, &foreign), Accept(vec![1, 2])),
            (
                "MP_REACH next hop ::",
                body(&[], &basic(&unspecified), &[]),
                Withdraw,
            ),
            (
                "IPv4 NLRI and MP_REACH, no NEXT_HOP",
                body(&[], &basic(&good), &NLRI),
                Withdraw,
            ),
            (
                "MP_REACH without ORIGIN",
                body(&[], &[good, path()].concat(), &[]),
                Withdraw,
            ),
        ],
        EXTERNAL,
    );
}

/// The attributes that only internal peers may send are read from them, and must be well formed there.
#[test]
fn internal_rows() {
    let internal = Context {
        as4: true,
        external: false,
    };
    check(
        &[
            ("LOCAL_PREF", one(0x40, 5, &[0, 0, 0, 100]), Accept(vec![1, 2, 5])),
            ("LOCAL_PREF len 3", one(0x40, 5, &[0; 3]), Withdraw),
            ("ORIGINATOR_ID", one(0x80, 9, &[1; 4]), Accept(vec![1, 2, 9])),
            ("ORIGINATOR_ID len 5", one(0x80, 9, &[1; 5]), Withdraw),
            ("CLUSTER_LIST len 5", one(0x80, 10, &[1; 5]), Withdraw),
            ("CLUSTER_LIST len 0", one(0x80, 10, &[]), Withdraw),
            ("empty AS_PATH", one(0x40, 2, &[]), Accept(vec![1, 2])),
        ],
        internal,
    );
}

/// A peer with 2-byte AS numbers: AS4_PATH and AS4_AGGREGATOR count, and are judged.
#[test]
fn two_byte_rows() {
    let context = Context {
        as4: false,
        external: true,
    };
    let short_path = attribute(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    let usual = |extra: &[u8]| {
        body(
            &[],
            &[origin(), short_path.clone(), next_hop(), extra.to_vec()].concat(),
            &NLRI,
        )
    };
    let as4 = |asn: u32| attribute(0xc0, 17, &[vec![2, 1], asn.to_be_bytes().to_vec()].concat());
    check(
        &[
            ("AS4_PATH", usual(&as4(70_000)), Accept(vec![1, 2])),
            (
                "AS4_PATH malformed",
                usual(&attribute(0xc0, 17, &[2, 2, 0, 0])),
                Discard(vec![1, 2]),
            ),
            ("AS4_PATH with AS 0", usual(&as4(0)), Withdraw),
            (
                "AGGREGATOR len 8",
                usual(&attribute(0xc0, 7, &[0, 0, 0, 1, 1, 1, 1, 1])),
                Discard(vec![1, 2]),
            ),
            (
                "AGGREGATOR",
                usual(&attribute(0xc0, 7, &[0, 1, 1, 1, 1, 1])),
                Accept(vec![1, 2, 7]),
            ),
            ("4-byte AS_PATH", with(2, &path()), Withdraw),
        ],
        context,
    );
    let update = usual(&as4(70_000));
    let update = Update::decode(&update, context).unwrap();
    let mut canonical = Vec::new();
    update.canonical_attributes(&mut canonical);
    assert_eq!(
        isthmus_bgp_packet::AttributesView::new(&canonical)
            .as_path()
            .to_string(),
        "65001 70000"
    );
}

/// What goes into the NOTIFICATION, and what people read.
#[test]
fn notification_data_and_text() {
    let error = Update::decode(&one(0x40, 200, &[1]), EXTERNAL).unwrap_err();
    assert_eq!(error.data, [0x40, 200, 1, 1]);
    assert_eq!(error.to_string(), "Unrecognized Well-known Attribute (3/2)");
    let long = one(0x40, 200, &[0; 4000]);
    assert!(Update::decode(&long, EXTERNAL).unwrap_err().data.len() <= 4096 - 21);

    let bad = one(0xc0, 8, &[0; 5]);
    let update = Update::decode(&bad, EXTERNAL).unwrap();
    assert_eq!(update.fault().unwrap().to_string(), "COMMUNITIES: wrong length");
}

#[test]
fn end_of_rib_markers() {
    let v6 = attribute(0x80, 15, &[0, 2, 1]);
    let v6_extended = [0x90, 15, 0, 3, 0, 2, 1];
    for (name, body, expected) in [
        ("IPv4", body(&[], &[], &[]), Some("ipv4/unicast")),
        ("IPv6", body(&[], &v6, &[]), Some("ipv6/unicast")),
        (
            "IPv6 with extended length",
            body(&[], &v6_extended, &[]),
            Some("ipv6/unicast"),
        ),
        (
            "another family",
            body(&[], &attribute(0x80, 15, &[0, 25, 70]), &[]),
            Some("afi 25/safi 70"),
        ),
        (
            "a withdrawal",
            body(&[], &attribute(0x80, 15, &[0, 2, 1, 8, 0x20]), &[]),
            None,
        ),
        ("a route", with(0, &[]), None),
    ] {
        let update = Update::decode(&body, EXTERNAL).unwrap();
        assert_eq!(
            update.end_of_rib().map(|family| family.to_string()).as_deref(),
            expected,
            "{name}"
        );
    }
}
