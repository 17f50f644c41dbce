//! The demo.
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab::Lab;
use crate::progress::Progress;
pub(crate) fn run(_l: &Lab, _p: &Progress) -> Outcome<Exit> {
    Err(Failure::unreachable("not there yet"))
}
