//! Joining clusters.
use crate::cli::ConnectArgs;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
pub(crate) fn connect(_a: &ConnectArgs, _p: &Progress) -> Outcome<Exit> {
    Err(Failure::unreachable("not there yet"))
}
pub(crate) fn disconnect(_a: &ConnectArgs, _p: &Progress) -> Outcome<Exit> {
    Err(Failure::unreachable("not there yet"))
}
