//! The kernel takes every program.
mod rig;
use isthmus_datapath::{Datapath, Reason};

#[test]
fn the_verifier_takes_every_program() {
    let Some(rig) = rig::Rig::new("load") else { return };
    let datapath = Datapath::open(rig.config()).expect("open");
    assert!(!datapath.is_adopted());
    assert_eq!(datapath.attached().len(), 8);
    let metrics = datapath.metrics().expect("metrics");
    assert_eq!(metrics.len(), Reason::ALL.len());
}
