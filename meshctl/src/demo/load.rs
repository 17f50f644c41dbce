//! A client at work in a place of the lab, while the demo breaks things.
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::failure::{Doing, Failure, Outcome};
use crate::lab::{Lab, status};
use crate::traffic::Record;

/// What a client does.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    place: String,
    args: Vec<String>,
}

impl Traffic {
    /// TCP requests from a place to an address.
    pub(super) fn new(place: &str, ip: IpAddr, port: u16) -> Self {
        let target = SocketAddr::new(ip, port).to_string();
        Self {
            place: place.into(),
            args: vec!["__traffic".into(), "--target".into(), target],
        }
    }

    fn with(mut self, flag: &str, value: impl ToString) -> Self {
        self.args.extend([flag.to_owned(), value.to_string()]);
        self
    }

    /// So many in a second.
    pub(super) fn rate(self, rate: u32) -> Self {
        self.with("--rate", rate)
    }

    /// So many in all.
    pub(super) fn count(self, count: u64) -> Self {
        self.with("--count", count)
    }

    /// Open streams beside the requests.
    pub(super) fn streams(self, streams: u32) -> Self {
        self.with("--streams", streams)
    }

    /// Datagrams instead of connections.
    pub(super) fn udp(self) -> Self {
        self.with("--protocol", "udp")
    }

    /// Starts the client.
    pub(super) fn start(&self, lab: &Lab) -> Outcome<Load> {
        let own = std::env::current_exe()
            .doing("find meshctl itself")?
            .display()
            .to_string();
        let command: Vec<String> = [own].into_iter().chain(self.args.iter().cloned()).collect();
        let mut child = status::command_in(lab, &self.place, false, &command)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .doing(format!("start a client in {}", self.place))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::unreachable("the client has no pipes"));
        };
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let seen = Arc::clone(&records);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let record = line.parse();
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(record);
            }
        });
        Ok(Load {
            child,
            stdin: Some(stdin),
            reader: Some(reader),
            records,
        })
    }

    /// Runs the client until it has sent its count.
    pub(super) fn run(&self, lab: &Lab) -> Outcome<Vec<Record>> {
        let mut load = self.start(lab)?;
        load.finish()
    }
}

/// A client that runs; dropped, it ends.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Load {
    /// Looks at what has been reported so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[Record]) -> T) -> T {
        look(&self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops sending, waits for the requests under way, and gives all records in the order of sending.
    pub(super) fn stop(mut self) -> Outcome<Vec<Record>> {
        self.stdin = None;
        self.finish()
    }

    fn finish(&mut self) -> Outcome<Vec<Record>> {
        if let Some(reader) = self.reader.take() {
            reader
                .join()
                .map_err(|_| Failure::unreachable("the client's reader failed"))?;
        }
        self.child.wait().doing("wait for the client")?;
        let mut records = std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        records.sort_by_key(|r| r.sent_us);
        Ok(records)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stdin = None;
        // One that has ended cannot be killed; its status must be collected all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
