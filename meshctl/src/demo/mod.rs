//! The demo: what the mesh does, step by step, each with a measured figure. The exit code is 0 only if every step held.
mod load;
mod measure;
mod script;
mod stage;
mod steps;
mod summary;

use std::time::Instant;

use crate::exit::Exit;
use crate::failure::Outcome;
use crate::lab::{Lab, status};
use crate::output::{Format, List, print};
use crate::progress::{Mark, Progress};

use script::Script;

/// Runs the demo in a lab that is up, meshed or not.
pub(crate) fn run(lab: &Lab, format: Format, progress: &Progress) -> Outcome<Exit> {
    let start = Instant::now();
    let mut script = Script::new(lab, progress, stage::heal_everything);
    steps::run(&mut script);
    let results = script.into_results();
    let (all, failed) = (results.len(), results.iter().filter(|r| !r.held).count());
    let exit = if failed == 0 { Exit::Ok } else { Exit::Degraded };
    let list = List::new("DemoStepList", results, exit);
    match format {
        Format::Json | Format::Yaml => print(&list.text(format)?)?,
        _ => {
            let (table, picture) = (list.text(format)?, summary::picture(lab));
            print(&format!("\n{table}\n{picture}\n{}", status::hints(lab)))?;
        }
    }
    let took = Some(start.elapsed());
    match failed {
        0 => progress.step(Mark::Good, "demo", format!("all {all} steps held"), took),
        _ => progress.step(
            Mark::Bad,
            "demo",
            format!("{failed} of {all} steps did not hold"),
            took,
        ),
    }
    Ok(list.exit())
}
