//! Two network namespaces and the cable between them.
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The node's end.
pub(crate) const NODE_V4: &str = "10.0.0.1";
/// The router's end.
pub(crate) const TOR_V4: &str = "10.0.0.254";
/// The node's end.
pub(crate) const NODE_V6: &str = "fd00::1";
/// The router's end.
pub(crate) const TOR_V6: &str = "fd00::254";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace that goes with its value.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    fn new(role: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("speaker-{}-{count}-{role}", std::process::id());
        ip(&["netns", "add", &name]);
        let new = Self(name);
        new.ip(&["link", "set", "lo", "up"]);
        new
    }

    /// A command that runs inside. `ip netns exec` would remount /sys; nsenter only changes the network.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    /// Runs a function in a thread of its own inside the namespace; sockets that it makes stay inside.
    pub(crate) fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).expect("the namespace exists");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter");
                inside()
            });
            thread.join().expect("the thread ends well")
        })
    }

    /// Its name under /run/netns.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// `ip -n NAME …`.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.0];
        all.extend(arguments);
        ip(&all);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _nothing_left_to_tell = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {said}", arguments.join(" "));
}

/// ```text
///   +-- node ---------+          +-- tor -------------+
///   | 10.0.0.1  eth0  +----------+ eth0  10.0.0.254   |
///   | fd00::1         |          |       fd00::254    |
///   +-----------------+          +--------------------+
/// ```
#[derive(Debug)]
pub(crate) struct Link {
    /// Where our speaker runs.
    pub(crate) node: Namespace,
    /// Where the router runs.
    pub(crate) tor: Namespace,
}

impl Link {
    /// Lays the cable.
    pub(crate) fn new() -> Self {
        let (node, tor) = (Namespace::new("node"), Namespace::new("tor"));
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &tor.0];
        let mut add = vec!["link", "add", "eth0"];
        add.extend(pair);
        node.ip(&add);
        for (end, v4, v6) in [(&node, NODE_V4, NODE_V6), (&tor, TOR_V4, TOR_V6)] {
            end.ip(&["addr", "add", &format!("{v4}/24"), "dev", "eth0"]);
            end.ip(&["addr", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
            end.ip(&["link", "set", "eth0", "up"]);
        }
        Self { node, tor }
    }
}
