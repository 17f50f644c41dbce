//! What is going on, on standard error: one line for each step, with what it waits for and how long it took.
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most terminals are at least so wide.
const LIVE_WIDTH: usize = 79;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It held.
    Good,
    /// It works, with a remark.
    Note,
    /// It failed.
    Bad,
}

/// What a wait waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    what: String,
    hopeless: bool,
}

impl Pending {
    /// It will never come: there is no need to wait any longer.
    pub(crate) fn hopeless(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hopeless: true,
        }
    }
}

impl From<String> for Pending {
    fn from(what: String) -> Self {
        Self {
            what,
            hopeless: false,
        }
    }
}

/// Where progress goes, and how it looks.
#[derive(Debug)]
pub(crate) struct Progress {
    plain: bool,
    live: bool,
    /// The wait that is shown on the last line, if the terminal can take it back.
    shown: Mutex<bool>,
}

impl Progress {
    /// Plain (ASCII, no colour, no line taken back) when asked for, when NO_COLOR is set, or when standard error is no
    /// terminal.
    pub(crate) fn new(plain: bool) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self {
            plain: plain || no_color || !terminal,
            live: terminal && !plain,
            shown: Mutex::new(false),
        }
    }

    /// True when symbols and colours are left out.
    pub(crate) fn plain(&self) -> bool {
        self.plain
    }

    /// A step ended: `✓ name   text   0.4s`.
    pub(crate) fn step(&self, mark: Mark, name: &str, text: impl Display, took: Option<Duration>) {
        let took = took.map_or_else(String::new, |t| format!("   {}", seconds(t)));
        self.line(&format!("{} {name:<12} {text}{took}", self.symbol(mark)));
    }

    /// A step goes on: what it waits for. Shown once for each new reason.
    pub(crate) fn waiting(&self, name: &str, what: impl Display) {
        let mut line = format!("{} {name:<12} waiting for {what}", self.dots());
        if self.live && line.chars().count() > LIVE_WIDTH {
            // A line that wraps cannot be taken back.
            line = line.chars().take(LIVE_WIDTH - 1).chain(['…']).collect();
        }
        self.write(&line, self.live);
    }

    /// A line of text.
    pub(crate) fn line(&self, text: &str) {
        self.write(text, false);
    }

    fn write(&self, text: &str, take_back: bool) {
        let mut shown = self
            .shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = std::io::stderr().lock();
        let back = if *shown { "\r\x1b[2K" } else { "" };
        let end = if take_back { "" } else { "\n" };
        // Progress is a courtesy: a closed standard error must not stop the work.
        let _ = write!(out, "{back}{text}{end}").and_then(|()| out.flush());
        *shown = take_back;
    }

    fn symbol(&self, mark: Mark) -> &'static str {
        match (mark, self.plain) {
            (Mark::Good, false) => "\x1b[32m✓\x1b[0m",
            (Mark::Note, false) => "\x1b[33m!\x1b[0m",
            (Mark::Bad, false) => "\x1b[31m✗\x1b[0m",
            (Mark::Good, true) => "ok  ",
            (Mark::Note, true) => "note",
            (Mark::Bad, true) => "FAIL",
        }
    }

    fn dots(&self) -> &'static str {
        if self.plain { "... " } else { "…" }
    }

    /// Waits until `look` gives a value; it says what it waits for in its error. A line is printed when the reason changes.
    pub(crate) fn wait<T, E: Into<Pending>>(
        &self,
        name: &str,
        deadline: Instant,
        mut look: impl FnMut() -> Result<T, E>,
    ) -> Result<(T, Duration), String> {
        let start = Instant::now();
        let mut last = String::new();
        loop {
            let pending = match look() {
                Ok(value) => return Ok((value, start.elapsed())),
                Err(pending) => pending.into(),
            };
            if pending.hopeless || Instant::now() >= deadline {
                return Err(pending.what);
            }
            if pending.what != last {
                self.waiting(name, &pending.what);
                last = pending.what;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// `0.4s`, `12ms`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_millis(100) {
        format!("{:.1}ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1}s", duration.as_secs_f64())
    }
}
