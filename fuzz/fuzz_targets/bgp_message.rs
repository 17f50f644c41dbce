//! Any bytes as a BGP stream: every message is cut off, read, walked over and written again, without panic or endless loop.
#![no_main]
use isthmus_bgp_packet::{AttributesView, Context, Disposition, Family, Message, frame, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, mut rest)) = data.split_first() else {
        return;
    };
    let context = Context { as4: mode & 1 != 0, external: mode & 2 != 0 };
    while let Ok(Some(frame)) = frame::split(rest) {
        rest = &rest[frame.len..];
        if let Ok(Message::Update(update)) = Message::decode(frame, context) {
            walk(&update);
        }
    }
});

fn walk(update: &isthmus_bgp_packet::Update<'_>) {
    let withdrawn: usize = update.withdrawn().map(Iterator::count).sum();
    assert!(withdrawn <= 4096);
    if update.disposition() == Disposition::TreatAsWithdraw {
        return;
    }
    let mut canonical = Vec::new();
    update.canonical_attributes(&mut canonical);
    let view = AttributesView::new(&canonical);
    assert!(view.iter().map(|a| a.kind).is_sorted());
    let _ = (view.as_path().to_string(), view.communities().count(), view.aggregator());
    for (prefixes, next_hop) in update.announced() {
        let next_hop = next_hop.expect("an accepted route has a next hop").address;
        let family = prefixes.family();
        let mut out = Vec::new();
        if write::announce(&mut out, family, view, next_hop, true, prefixes).is_ok() && family == Family::Ipv4Unicast {
            assert!(matches!(frame::split(&out), Ok(Some(_))));
        }
    }
}
