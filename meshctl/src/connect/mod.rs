//! Joining two clusters: checks, certificates, the peers' configuration, and waiting until packets cross.
mod preflight;
mod wait;
mod write;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::cli::ConnectArgs;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::progress::{Mark, Progress, seconds};

/// `meshctl connect A B`.
pub(crate) fn connect(args: &ConnectArgs, progress: &Progress) -> Outcome<Exit> {
    if args.dry_run {
        let pair = pair(args)?;
        check(args, &pair, progress)?;
        return print_plan(&pair);
    }
    join(args, progress)?;
    print("next: meshctl services | meshctl status\n")?;
    Ok(Exit::Ok)
}

/// Checks, writes and waits.
pub(crate) fn join(args: &ConnectArgs, progress: &Progress) -> Outcome {
    let start = Instant::now();
    let pair = pair(args)?;
    check(args, &pair, progress)?;
    let wrote = write_both(&pair, progress)?;
    let [a, b] = &pair;
    let names = format!("{} ⇄ {}", a.name(), b.name());
    if args.no_wait {
        progress.step(
            Mark::Note,
            "written",
            format!("{names}, not waited for"),
            Some(start.elapsed()),
        );
        return Ok(());
    }
    wait::both_ready(&pair, Duration::from_secs(args.timeout), progress)?;
    let verb = if wrote {
        "connected"
    } else {
        "already connected, nothing was changed:"
    };
    progress.line(&format!("{verb} {names} in {}", seconds(start.elapsed())));
    Ok(())
}

/// `meshctl disconnect A B`.
pub(crate) fn disconnect(args: &ConnectArgs, progress: &Progress) -> Outcome<Exit> {
    let start = Instant::now();
    let pair = pair(args)?;
    let [a, b] = &pair;
    let names = format!("{} and {}", a.name(), b.name());
    if args.dry_run {
        let files = [write::files(a, b), write::files(b, a)].concat();
        let there: Vec<String> = files
            .iter()
            .filter(|f| f.exists())
            .map(|f| format!("remove {}\n", f.display()))
            .collect();
        print(&there.concat())?;
        return Ok(Exit::Ok);
    }
    let mut removed = false;
    for (own, peer) in [(a, b), (b, a)] {
        removed |= write::remove(own, peer)?;
    }
    if !removed {
        progress.step(
            Mark::Good,
            "parted",
            format!("{names} were not connected, nothing was changed"),
            None,
        );
        return Ok(Exit::Ok);
    }
    if !args.no_wait {
        wait::both_gone(&pair, Duration::from_secs(args.timeout), progress)?;
    }
    progress.step(Mark::Good, "parted", &names, Some(start.elapsed()));
    progress.step(
        Mark::Note,
        "trust",
        "certificates that were given out stay valid until they expire: to revoke them, renew the authorities",
        None,
    );
    Ok(Exit::Ok)
}

fn pair(args: &ConnectArgs) -> Outcome<[Context; 2]> {
    Ok([
        context::one(&args.scope, &args.first)?,
        context::one(&args.scope, &args.second)?,
    ])
}

/// All findings are told, not just the first; with a bad one nothing is changed.
fn check(args: &ConnectArgs, pair: &[Context; 2], progress: &Progress) -> Outcome {
    let start = Instant::now();
    let others = context::all(&args.scope).unwrap_or_default();
    let report = preflight::check(pair, &others, Timestamp::now(), &preflight::ask_apiserver);
    for finding in &report.findings {
        progress.step(finding.mark(), "preflight", finding, None);
    }
    let bad: Vec<String> = report
        .findings
        .iter()
        .filter(|f| f.bad)
        .map(ToString::to_string)
        .collect();
    if bad.is_empty() {
        let text = format!("{}   {} checks", report.title, report.checks);
        progress.step(Mark::Good, "preflight", text, Some(start.elapsed()));
        return Ok(());
    }
    let [a, b] = pair;
    let failure = Failure::usage(format!(
        "{} and {} cannot be connected; nothing was changed",
        a.name(),
        b.name()
    ));
    Err(bad
        .into_iter()
        .fold(failure, Failure::because)
        .next("mend what is named above, then connect again"))
}

fn write_both(pair: &[Context; 2], progress: &Progress) -> Outcome<bool> {
    let start = Instant::now();
    let [a, b] = pair;
    let mut wrote = false;
    let mut days = i64::MAX;
    for (own, peer) in [(a, b), (b, a)] {
        let written = write::write(own, peer, Timestamp::now())?;
        wrote |= written.changed;
        days = days.min(written.days);
    }
    let what = if wrote {
        "authorities exchanged, client certificates issued"
    } else {
        "already exchanged"
    };
    progress.step(
        Mark::Good,
        "trust",
        format!("{what}, expires in {days}d"),
        Some(start.elapsed()),
    );
    Ok(wrote)
}

fn print_plan(pair: &[Context; 2]) -> Outcome<Exit> {
    let [a, b] = pair;
    let mut text = String::new();
    for (own, peer) in [(a, b), (b, a)] {
        for file in write::files(own, peer) {
            let verb = if file.exists() { "keep or renew" } else { "write" };
            text += &format!("{verb} {}\n", file.display());
        }
    }
    print(&(text + "dry run: nothing was changed\n"))?;
    Ok(Exit::Ok)
}
