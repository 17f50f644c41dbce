//! One request, as the client reports it: a line of text.
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// When it was sent, in microseconds of the machine's clock: comparable among the lab's processes.
    pub(crate) sent_us: u64,
    /// How long it took, in microseconds.
    pub(crate) took_us: u64,
    /// Who answered (`east east-1 echo-east-1`), or why nobody did.
    pub(crate) answer: Result<String, String>,
}

impl Record {
    /// The cluster that answered.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.answer.as_ref().ok().and_then(|who| who.split(' ').next())
    }

    /// The pod that answered.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.answer.as_ref().ok().and_then(|who| who.split(' ').nth(2))
    }

    /// When the answer, or the failure, was there.
    pub(crate) fn done_us(&self) -> u64 {
        self.sent_us + self.took_us
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, text) = match &self.answer {
            Ok(who) => ('+', who),
            Err(why) => ('-', why),
        };
        let line = text.replace(['\n', '\r'], " ");
        write!(f, "{} {} {sign} {line}", self.sent_us, self.took_us)
    }
}

impl FromStr for Record {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut parts = line.splitn(4, ' ');
        let mut number = || parts.next().and_then(|n| n.parse().ok()).ok_or(());
        let (sent_us, took_us) = (number()?, number()?);
        let sign = parts.next().ok_or(())?;
        let text = parts.next().unwrap_or_default().to_owned();
        let answer = match sign {
            "+" => Ok(text),
            "-" => Err(text),
            _ => return Err(()),
        };
        Ok(Self {
            sent_us,
            took_us,
            answer,
        })
    }
}

/// The machine's clock in microseconds.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_pipe() {
        for answer in [
            Ok("east east-1 echo-east-1".to_owned()),
            Err("connect: refused".to_owned()),
        ] {
            let record = Record {
                sent_us: 1_700_000_000_000_000,
                took_us: 420,
                answer,
            };
            assert_eq!(record.to_string().parse(), Ok(record));
        }
        for odd in ["", "1", "1 2", "1 2 ? x", "x y + z"] {
            assert_eq!(odd.parse::<Record>(), Err(()), "{odd:?}");
        }
    }

    #[test]
    fn an_answer_names_cluster_and_pod() {
        let record = Record {
            sent_us: 0,
            took_us: 5,
            answer: Ok("west west-2 echo-west-2".into()),
        };
        assert_eq!(
            (record.cluster(), record.pod()),
            (Some("west"), Some("echo-west-2"))
        );
    }
}
