//! The frame of the demo: each step is told, done, measured and judged.
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::Outcome;
use crate::lab::Lab;
use crate::progress::{Mark, Progress};

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct StepResult {
    /// Its name.
    #[serde(rename = "step")]
    pub(super) name: &'static str,
    /// What was measured, in words.
    pub(super) measured: String,
    /// What it must reach.
    #[serde(rename = "must")]
    pub(super) target: &'static str,
    /// Whether it did.
    pub(super) held: bool,
}

/// A measured figure and whether it is good enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// In words.
    pub(super) measured: String,
    /// Good enough.
    pub(super) held: bool,
}

/// The demo at work.
pub(super) struct Script<'s> {
    /// Where it plays.
    pub(super) lab: &'s Lab,
    /// Where it is told.
    pub(super) progress: &'s Progress,
    mend: fn(&Lab, &Progress) -> Outcome,
    results: Vec<StepResult>,
}

impl<'s> Script<'s> {
    /// A demo that has not begun. `mend` makes the lab whole after a step that failed half-way.
    pub(super) fn new(lab: &'s Lab, progress: &'s Progress, mend: fn(&Lab, &Progress) -> Outcome) -> Self {
        Self {
            lab,
            progress,
            mend,
            results: Vec::new(),
        }
    }

    /// Does one step: says what is about to be seen, does it, and says what was measured. A step that fails does not keep
    /// the following ones from being tried.
    pub(super) fn step(
        &mut self,
        name: &'static str,
        story: &str,
        target: &'static str,
        work: impl FnOnce(&Lab, &Progress) -> Outcome<Verdict>,
    ) {
        self.progress
            .line(&format!("\n{}. {story}", self.results.len() + 1));
        let start = Instant::now();
        let Verdict { measured, held } = match work(self.lab, self.progress) {
            Ok(verdict) => verdict,
            Err(failure) => self.failed(&failure.to_string()),
        };
        let mark = if held { Mark::Good } else { Mark::Bad };
        self.progress.step(mark, name, &measured, Some(start.elapsed()));
        self.results.push(StepResult {
            name,
            measured,
            target,
            held,
        });
    }

    /// What a step left broken must not spoil the next ones.
    fn failed(&self, why: &str) -> Verdict {
        if let Err(failure) = (self.mend)(self.lab, self.progress) {
            self.progress.line(&failure.to_string());
        }
        Verdict {
            measured: why.replace("\n  ", " — "),
            held: false,
        }
    }

    /// What the steps came to, in their order.
    pub(super) fn into_results(self) -> Vec<StepResult> {
        self.results
    }
}

/// Waits for a condition of the lab; `look` says what it waits for.
pub(super) fn wait_for<T>(
    progress: &Progress,
    name: &str,
    seconds: u64,
    look: impl FnMut() -> Result<T, String>,
) -> Outcome<(T, Duration)> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    progress.wait(name, deadline, look).map_err(|why| {
        crate::failure::Failure::new(
            crate::exit::Exit::Timeout,
            format!("waited {seconds} s in vain for {why}"),
        )
    })
}
