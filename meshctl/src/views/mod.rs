//! The listings: each asks the daemons, makes rows of one type, and shows them in any format with the same exit code.
mod bgp;
mod nodes;
mod services;
mod source;
mod status;
mod version;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::ListArgs;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{List, TableRow, print};
use crate::progress::Progress;

pub(crate) use bgp::{peers as bgp_peers, routes as bgp_routes};
pub(crate) use nodes::nodes;
pub(crate) use services::services;
pub(crate) use status::status;
pub(crate) use version::version;

/// Shows a listing; with `--wait` only when all is well or the time is up.
fn show<T: Serialize + TableRow>(
    args: &ListArgs,
    progress: &Progress,
    gather: impl Fn() -> Outcome<List<T>>,
) -> Outcome<Exit> {
    if !args.wait {
        return told(&gather()?, args);
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let look = || match gather() {
        Ok(list) if list.exit() == Exit::Ok => Ok(list),
        Ok(list) => Err(list.why().to_owned()),
        Err(failure) => Err(failure.to_string().lines().next().unwrap_or_default().to_owned()),
    };
    match progress.wait("wait", deadline, look) {
        Ok((list, _)) => told(&list, args),
        Err(why) => {
            if let Ok(list) = gather() {
                told(&list, args)?;
            }
            let what = format!("not all is well after {} s", args.timeout);
            Err(Failure::new(Exit::Timeout, what)
                .because(why)
                .next("meshctl status -o wide"))
        }
    }
}

fn told<T: Serialize + TableRow>(list: &List<T>, args: &ListArgs) -> Outcome<Exit> {
    print(&list.text(args.output)?)?;
    Ok(list.exit())
}
