//! Our speaker under test, in the node's namespace.
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use isthmus_admin::AdminClient;
use isthmus_admin::bgp::{PeerView, RouteView};
use isthmus_testkit::{Process, wait_until};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::{Cluster, Link, NODE_AS, Namespace, PATIENCE, TOR_V4, TOR_V6};

/// What the configuration says about the one peer, beside its name and address.
#[derive(Debug, Clone)]
pub(crate) struct PeerSettings(Vec<String>);

impl Default for PeerSettings {
    fn default() -> Self {
        Self(vec![
            format!("peerAddress: {TOR_V4}"),
            format!("peerASN: {}", super::TOR_AS),
            "connectRetryTimeSeconds: 1".to_owned(),
        ])
    }
}

impl PeerSettings {
    /// Adds a line, or replaces the one with the same key.
    pub(crate) fn with(mut self, line: &str) -> Self {
        let key = line.split(':').next().unwrap_or_default();
        self.0.retain(|other| other.split(':').next() != Some(key));
        self.0.push(line.to_owned());
        self
    }

    /// The session runs over IPv6.
    pub(crate) fn over_ipv6(self) -> Self {
        self.with(&format!("peerAddress: \"{TOR_V6}\""))
    }

    /// Adds a second peer that takes any AS and waits.
    pub(crate) fn and(mut self, name: &str, address: &str) -> Self {
        let other = format!("import: accept\n- name: {name}\n  peerAddress: {address}\n  passive: true");
        self.0.push(other);
        self
    }

    fn yaml(&self, listen: bool) -> String {
        let listen = if listen { "listen: {address: \"::\"}\n" } else { "" };
        let lines: String = self.0.iter().map(|line| format!("  {line}\n")).collect();
        format!("localASN: {NODE_AS}\n{listen}peers:\n- name: tor\n{lines}")
    }
}

/// The running daemon with its files.
#[derive(Debug)]
pub(crate) struct Speaker {
    dir: TempDir,
    process: Option<Process>,
    /// Further arguments of its command line.
    arguments: Vec<String>,
    /// When it was started last.
    pub(crate) started: Instant,
    /// Its manifests.
    pub(crate) cluster: Cluster,
}

impl Speaker {
    /// Starts it with a listener.
    pub(crate) fn start(link: &Link, peer: &PeerSettings) -> Self {
        let speaker = Self::prepare(peer, true);
        speaker.run(&link.node)
    }

    /// Writes its files without starting it.
    pub(crate) fn prepare(peer: &PeerSettings, listen: bool) -> Self {
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("speaker.yaml"), peer.yaml(listen)).expect("written");
        let cluster = Cluster::new(&dir.path().join("manifests"));
        Self {
            dir,
            process: None,
            arguments: Vec::new(),
            started: Instant::now(),
            cluster,
        }
    }

    /// Starts it, again if it was killed.
    pub(crate) fn run(mut self, node: &Namespace) -> Self {
        self.restart(node);
        self
    }

    /// Starts it, again if it was killed.
    pub(crate) fn restart(&mut self, node: &Namespace) {
        self.restart_under(node, &[]);
    }

    /// Starts it by another program that changes its privileges.
    pub(crate) fn restart_under(&mut self, node: &Namespace, wrapper: &[&str]) {
        let mut words = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_bgp-speaker")]);
        let mut command = node.command(words.next().unwrap_or_default());
        command.args(words);
        let path = |name: &str| self.dir.path().join(name);
        command.args(["--node-name", "node-1"]);
        command.arg("--manifests").arg(path("manifests"));
        command.arg("--config").arg(path("speaker.yaml"));
        command.arg("--admin-socket").arg(self.socket());
        command.args(&self.arguments);
        self.started = Instant::now();
        self.process = Some(Process::start("bgp-speaker", command).expect("nsenter runs"));
    }

    /// Where the agent of the node would listen.
    pub(crate) fn agent_socket(&self) -> std::path::PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// From its next start on it follows the agent.
    pub(crate) fn follow_agent(&mut self) {
        let socket = self.agent_socket().display().to_string();
        self.arguments = vec!["--agent-socket".to_owned(), socket];
    }

    /// From its next start on its end withdraws everything.
    pub(crate) fn withdraw_at_the_end(&mut self) {
        self.arguments = vec!["--shutdown-withdraw".to_owned()];
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("killed");
    }

    /// Ends it politely and waits until it is gone.
    pub(crate) fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process
            .signal(nix::sys::signal::Signal::SIGTERM)
            .expect("signalled");
        wait_until(PATIENCE, "the speaker ends", || {
            process.exited().expect("our child").is_some()
        })
        .expect("it ends");
    }

    /// Replaces the configuration of its peer.
    pub(crate) fn configure(&self, peer: &PeerSettings) {
        let fresh = self.dir.path().join("speaker.yaml.new");
        std::fs::write(&fresh, peer.yaml(true)).expect("written");
        std::fs::rename(fresh, self.dir.path().join("speaker.yaml")).expect("renamed");
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Memory of its own (not the program's file) in KiB.
    pub(crate) fn own_memory_kib(&self) -> u64 {
        let pid = self.process.as_ref().expect("it runs").pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let figure = line.and_then(|line| line.split_whitespace().nth(1));
        figure.and_then(|figure| figure.parse().ok()).unwrap_or_default()
    }

    /// Reads a view.
    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        read(&self.socket(), path)
    }

    /// Reads a text.
    pub(crate) fn text(&self, path: &str) -> Result<String, String> {
        with_client(&self.socket(), async |client| client.text(path).await)
    }

    /// Gives an order.
    pub(crate) fn act(&self, path: &str) -> Result<(), String> {
        act(&self.socket(), path)
    }

    /// Its one peer, if the speaker answers.
    pub(crate) fn peer(&self) -> Option<PeerView> {
        let peers: Vec<PeerView> = self.read("/v1/peers").ok()?;
        peers.into_iter().next()
    }

    /// Whether its one session is up.
    pub(crate) fn established(&self) -> bool {
        self.peer().is_some_and(|peer| peer.established())
    }

    /// Waits until its session is up; answers how long after its start.
    pub(crate) fn wait_established(&self) -> Duration {
        wait_until(PATIENCE, "the session is up", || self.established()).expect("a session");
        self.started.elapsed()
    }

    /// Prefixes in a table.
    pub(crate) fn prefixes(&self, table: &str) -> BTreeSet<String> {
        let routes: Vec<RouteView> = self
            .read(&format!("/v1/routes?table={table}"))
            .unwrap_or_default();
        routes
            .iter()
            .filter(|route| route.active)
            .map(|route| route.prefix.to_string())
            .collect()
    }
}

/// Reads a view of the speaker behind an admin socket.
pub(crate) fn read<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, String> {
    with_client(socket, async |client| client.read(path).await)
}

/// Gives an order to the speaker behind an admin socket.
pub(crate) fn act(socket: &Path, path: &str) -> Result<(), String> {
    with_client(socket, async |client| client.act(path).await)
}

fn with_client<T>(
    socket: &Path,
    question: impl AsyncFnOnce(AdminClient) -> Result<T, isthmus_admin::AdminError>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime
        .block_on(question(AdminClient::new(socket)))
        .map_err(|e| e.to_string())
}
