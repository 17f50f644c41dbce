//! One line for each event, on stderr.
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: `time level message field=value`.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("log format {other:?} is not known: use text or json")),
        }
    }
}

/// Starts logging for this process; a second call is ignored. `filter` is the level (`info`, or `isthmus_agent=debug,info`)
/// that holds unless the environment variable `ISTHMUS_LOG` says otherwise.
pub fn init_logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_from_env("ISTHMUS_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // A process that is already logging (a test) keeps its logger.
    drop(outcome);
}
