//! The verbs of `meshctl lab`.
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::fault::{self, Target};
use super::paths::{Paths, system_program};
use super::plan::Plan;
use super::{Lab, down, status, up};
use crate::cli::LabCommand;
use crate::demo;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::progress::{Mark, Progress};

/// Runs one verb.
pub(crate) fn run(command: &LabCommand, progress: &Progress) -> Outcome<Exit> {
    match command {
        LabCommand::Up { lab, options } => bring_up(&lab.name, options, progress),
        LabCommand::Down { lab } => take_down(&lab.name, progress),
        LabCommand::Status { lab, output } => {
            let parts = status::parts(&Lab::open(&lab.name)?)?;
            print(&parts.text(*output)?)?;
            Ok(parts.exit())
        }
        LabCommand::Exec { lab, place, command } => Err(exec(&Lab::open(&lab.name)?, place, command)),
        LabCommand::Shell { lab, place } => Err(shell(&Lab::open(&lab.name)?, place)),
        LabCommand::Break { lab, part } => break_part(&lab.name, part, progress),
        LabCommand::Heal { lab, part } => heal(&lab.name, part.as_deref(), progress),
        LabCommand::Demo { lab, output } => demo::run(&Lab::open(&lab.name)?, *output, progress),
    }
}

fn bring_up(name: &str, options: &up::UpOptions, progress: &Progress) -> Outcome<Exit> {
    let lab = up::up(name, options, progress)?;
    let took = Duration::from_millis(lab.took_ms);
    progress.step(
        Mark::Good,
        "up",
        format!("lab {name}, not meshed yet"),
        Some(took),
    );
    print(&status::hints(&lab))?;
    Ok(Exit::Ok)
}

fn take_down(name: &str, progress: &Progress) -> Outcome<Exit> {
    let start = Instant::now();
    Plan::new(name)?;
    let paths = Paths::of(name)?;
    if !paths.root.exists() {
        progress.step(
            Mark::Good,
            "down",
            format!("no lab {name} is up, nothing to do"),
            None,
        );
        return Ok(Exit::Ok);
    }
    if !paths.ledger().exists() {
        // A lab that died between its first two system calls has made one empty directory.
        std::fs::remove_dir(&paths.root).map_err(|e| {
            Failure::unreachable(format!(
                "{} has no ledger, so meshctl did not make what is in it",
                paths.root.display()
            ))
            .because(e)
            .next("look into it and remove it by hand")
        })?;
    }
    let removed = match paths.root.exists() {
        true => down::down(&paths)?,
        false => down::Removed::default(),
    };
    let down::Removed {
        namespaces,
        processes,
        mounts,
        cgroups,
    } = removed;
    let text = format!(
        "lab {name}: {processes} processes, {namespaces} namespaces, {cgroups} control groups, {mounts} mount; nothing is left"
    );
    progress.step(Mark::Good, "down", text, Some(start.elapsed()));
    Ok(Exit::Ok)
}

/// Becomes the program, so its exit code is ours.
fn exec(lab: &Lab, place: &str, command: &[String]) -> Failure {
    match status::command_in(lab, place, true, command) {
        Ok(mut command) => became(&mut command),
        Err(failure) => failure,
    }
}

fn shell(lab: &Lab, place: &str) -> Failure {
    let wanted = std::env::var("SHELL")
        .ok()
        .filter(|s| std::path::Path::new(s).is_file());
    let shell = wanted.or_else(|| system_program("sh").map(|p| p.display().to_string()));
    exec(lab, place, &[shell.unwrap_or_else(|| "/bin/sh".into())])
}

fn became(command: &mut Command) -> Failure {
    let error = command.exec();
    Failure::unreachable("the program did not start").because(error)
}

fn break_part(name: &str, part: &str, progress: &Progress) -> Outcome<Exit> {
    let lab = Lab::open(name)?;
    let target = target(part)?;
    let start = Instant::now();
    fault::break_part(&lab, &target)?;
    progress.step(Mark::Good, "broken", &target, Some(start.elapsed()));
    print(&format!("next: meshctl lab heal --name {name} {target}\n"))?;
    Ok(Exit::Ok)
}

/// Heals one part, or whatever is broken.
fn heal(name: &str, part: Option<&str>, progress: &Progress) -> Outcome<Exit> {
    let lab = Lab::open(name)?;
    let targets = part.map_or_else(
        || Ok(Target::all(&lab.plan)),
        |part| target(part).map(|t| vec![t]),
    )?;
    let start = Instant::now();
    for target in &targets {
        if part.is_some() || fault::is_part(&lab, target)? {
            fault::heal_part(&lab, target, progress)?;
        }
    }
    let healed = part.unwrap_or("every part");
    progress.step(Mark::Good, "healed", healed, Some(start.elapsed()));
    Ok(Exit::Ok)
}

fn target(part: &str) -> Outcome<Target> {
    part.parse().map_err(|e: String| {
        let (what, next) = e.split_once("; ").unwrap_or((&e, ""));
        Failure::usage(what).next(next)
    })
}
