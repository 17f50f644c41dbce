//! What a user is told when something fails: what, why, and what to do next.
use std::fmt;

use serde::Serialize;

use crate::exit::Exit;
use crate::output::API_VERSION;

/// A failure that ends the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    what: String,
    causes: Vec<String>,
    next: Option<String>,
    exit: Exit,
}

/// The result of nearly everything here.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Something failed. `what` is one sentence without a full stop.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            causes: Vec::new(),
            next: None,
            exit,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// The machine or a daemon does not do its part.
    pub(crate) fn unreachable(what: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, what)
    }

    /// Why; may be said several times.
    pub(crate) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// What to do now.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The same as an object, for `-o json|yaml`.
    pub(crate) fn object(&self) -> impl Serialize + use<> {
        ErrorObject {
            api_version: API_VERSION,
            kind: "Error",
            what: self.what.clone(),
            causes: self.causes.clone(),
            next: self.next.clone(),
            exit_code: self.exit as u8,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for cause in &self.causes {
            write!(f, "\n  because  {cause}")?;
        }
        match &self.next {
            Some(next) => write!(f, "\n  next     {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorObject {
    api_version: &'static str,
    kind: &'static str,
    what: String,
    causes: Vec<String>,
    next: Option<String>,
    exit_code: u8,
}

/// Adds what was being done to an error from below.
pub(crate) trait Doing<T> {
    /// Turns the error into a failure with exit code 4: `doing` says what was tried.
    fn doing(self, doing: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl fmt::Display) -> Outcome<T> {
        self.map_err(|e| Failure::unreachable(format!("cannot {doing}")).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::usage("east and west cannot be joined")
            .because("both have cluster id 1")
            .next("give one of them another id");
        let text = "east and west cannot be joined\n  because  both have cluster id 1\n  next     give one of them another id";
        assert_eq!(failure.to_string(), text);
        let json = serde_json::to_string(&failure.object()).expect("plain data");
        assert!(json.starts_with(r#"{"apiVersion":"cli.isthmus.io/v1","kind":"Error","what":"east"#));
        assert!(json.ends_with(r#""exitCode":1}"#));
    }
}
