//! The demo: what the mesh does, step by step, each with a measured figure. The exit code is 0 only if every step held.
mod load;
mod measure;
mod script;
mod steps;
mod summary;

use std::time::Instant;

use crate::exit::Exit;
use crate::failure::Outcome;
use crate::lab::{Lab, status};
use crate::output::print;
use crate::progress::{Mark, Progress};

use script::Script;

/// Runs the demo in a lab that is up, meshed or not.
pub(crate) fn run(lab: &Lab, progress: &Progress) -> Outcome<Exit> {
    let start = Instant::now();
    let mut script = Script::new(lab, progress);
    steps::run(&mut script);
    let results = script.results();
    print(&format!("\n{}\n", summary::table(results)))?;
    print(&summary::picture(lab))?;
    print(&format!("\n{}", status::hints(lab)))?;
    let failed = results.iter().filter(|r| !r.held).count();
    let took = Some(start.elapsed());
    if failed == 0 {
        progress.step(
            Mark::Good,
            "demo",
            format!("all {} steps held", results.len()),
            took,
        );
        return Ok(Exit::Ok);
    }
    progress.step(
        Mark::Bad,
        "demo",
        format!("{failed} of {} steps did not hold", results.len()),
        took,
    );
    Ok(Exit::Degraded)
}
