//! Waiting for a condition, never for a time.
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long a loop rests between two looks at the condition.
const REST: Duration = Duration::from_millis(5);

/// The condition did not come true in time.
#[derive(Debug)]
pub struct Timeout {
    what: String,
    waited: Duration,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = self.waited.as_secs_f64();
        write!(f, "waited {waited:.1} s in vain until {}", self.what)
    }
}

impl std::error::Error for Timeout {}

/// Waits until `condition` gives a value. `what` completes the sentence "waited in vain until …".
pub fn wait_for<T>(
    deadline: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Timeout> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            return Err(timeout(what, start));
        }
        std::thread::sleep(REST);
    }
}

/// Waits until `condition` holds and gives the time it took.
pub fn wait_until(
    deadline: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> bool,
) -> Result<Duration, Timeout> {
    let start = Instant::now();
    wait_for(deadline, what, || condition().then(|| start.elapsed()))
}

/// As [`wait_for`], for a condition that awaits.
pub async fn wait_for_async<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> F,
) -> Result<T, Timeout> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            return Err(timeout(what, start));
        }
        tokio::time::sleep(REST).await;
    }
}

/// As [`wait_until`], for a condition that awaits.
pub async fn wait_until_async<F: Future<Output = bool>>(
    deadline: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> F,
) -> Result<Duration, Timeout> {
    let start = Instant::now();
    loop {
        if condition().await {
            return Ok(start.elapsed());
        }
        if start.elapsed() >= deadline {
            return Err(timeout(what, start));
        }
        tokio::time::sleep(REST).await;
    }
}

fn timeout(what: impl fmt::Display, start: Instant) -> Timeout {
    Timeout {
        what: what.to_string(),
        waited: start.elapsed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let third = || {
            looks += 1;
            (looks == 3).then_some("third look")
        };
        let value = wait_for(Duration::from_secs(5), "the third look", third);
        assert_eq!(value.expect("in time"), "third look");
    }

    #[test]
    fn a_vain_wait_says_what_for() {
        let error = wait_until(Duration::ZERO, "pigs fly", || false).expect_err("never");
        assert!(error.to_string().ends_with("in vain until pigs fly"), "{error}");
    }
}
