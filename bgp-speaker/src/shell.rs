//! The task that owns the engine. It moves bytes, time and configuration into it and its wishes out; it decides nothing.
//!
//! ```text
//!   readers, dials, listeners, admin API, configuration, intent --Event--> Shell { Speaker } --> writers, dials
//! ```
//!
//! One bounded channel carries every event, so a busy engine slows its sources down instead of filling memory. Before a timer
//! fires, everything that has already arrived is fed: a hold timer never expires over bytes that only wait in the channel.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use isthmus_bgp_engine::{ConnId, Input, Output, PeerChange, PeerId, Speaker, SpeakerConfig, Stop};
use isthmus_bgp_packet::Family;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Config;
use crate::connection::Connection;
use crate::dial::Dial;
use crate::event::{Ask, Event};
use crate::intent::Intent;
use crate::listen::Listeners;
use crate::log::{self, Log};
use crate::metrics::SpeakerMetrics;
use crate::peers::Peers;
use crate::view::{self, Scene};
use crate::{next_hop, socket};

/// How many events may wait for the engine.
pub(crate) const EVENTS: usize = 256;

/// A timer seen this late was not seen in time.
const LATE: Duration = Duration::from_millis(200);

/// How long the readers get then.
const CATCH_UP: Duration = Duration::from_millis(50);

/// How often metrics are refreshed while something happens.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// Both ends of the channel of events.
#[derive(Debug)]
pub(crate) struct Events {
    /// For everybody who tells.
    pub(crate) sender: mpsc::Sender<Event>,
    /// For the shell.
    pub(crate) receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// A fresh channel.
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(EVENTS);
        Self { sender, receiver }
    }
}

/// What a connection of the engine is in the world.
#[derive(Debug)]
enum Link {
    /// Being made; held so that dropping the link gives up.
    Dialing(#[expect(dead_code, reason = "held for its drop")] Dial),
    /// Made.
    Up(Connection),
}

/// The engine with everything that it needs of the world.
#[derive(Debug)]
pub(crate) struct Shell {
    node: String,
    engine: Speaker,
    started: Instant,
    config: Config,
    peers: Peers,
    intent: Intent,
    links: BTreeMap<ConnId, Link>,
    listeners: Listeners,
    events: Events,
    metrics: SpeakerMetrics,
    metrics_due: Option<Instant>,
    log: Log,
    stop: Option<Stop>,
}

impl Shell {
    /// Routes first, then peers and listeners: the first table that a peer gets is complete.
    pub(crate) fn start(
        node: String,
        engine: SpeakerConfig,
        config: Config,
        intent: Intent,
        events: Events,
        metrics: SpeakerMetrics,
    ) -> anyhow::Result<Self> {
        let listeners = Listeners::new(events.sender.clone());
        let mut shell = Self {
            node,
            engine: Speaker::new(Duration::ZERO, engine)?,
            started: Instant::now(),
            peers: Peers::default(),
            config: config.clone(),
            intent: Intent::default(),
            links: BTreeMap::new(),
            listeners,
            events,
            metrics,
            metrics_due: None,
            log: Log::default(),
            stop: None,
        };
        shell.set_intent(intent);
        shell.set_config(config)?;
        Ok(shell)
    }

    /// Runs until `stop` says how to end, and ends that way.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>, withdraw: bool) {
        tokio::pin!(stop);
        while self.stop.is_none() {
            self.flush();
            let timeout = self.engine.poll_timeout().map(|at| self.started + at);
            tokio::select! {
                biased;
                () = &mut stop => self.stop = Some(self.how_to_stop(withdraw)),
                Some(event) = self.events.receiver.recv() => self.handle(event),
                () = until(timeout) => {}
                () = until(self.metrics_due) => self.refresh_metrics(),
            }
            self.handle_waiting();
            self.let_readers_catch_up().await;
            self.fire();
        }
        self.end().await;
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn handle_waiting(&mut self) {
        for _ in 0..EVENTS {
            let Ok(event) = self.events.receiver.try_recv() else {
                return;
            };
            self.handle(event);
        }
    }

    /// A timer that is seen late means that this process did not run for a while: then the bytes that would have restarted a
    /// hold timer are still in the kernel, and the readers come first. It may have been stopped anywhere, so this is asked
    /// whatever woke the loop.
    async fn let_readers_catch_up(&mut self) {
        let late = self.engine.poll_timeout().map(|at| self.now().saturating_sub(at));
        if late.is_some_and(|late| late > LATE) {
            tokio::time::sleep(CATCH_UP).await;
            self.handle_waiting();
        }
    }

    /// Runs the timers that are due, also while events come without a pause.
    fn fire(&mut self) {
        let now = self.now();
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Received { conn, bytes } => {
                self.engine
                    .handle_input(now, Input::Received { conn, bytes: &bytes });
            }
            Event::Written { conn, bytes } => self.engine.handle_input(now, Input::Written { conn, bytes }),
            Event::Closed { conn, error } => {
                self.links.remove(&conn);
                self.engine
                    .handle_input(now, Input::Closed { conn, error: &error });
            }
            Event::Connected { conn, stream } => self.connected(conn, stream),
            Event::ConnectFailed { conn, error } => {
                if self.links.remove(&conn).is_some() {
                    tracing::debug!(%error, "no connection yet");
                    self.engine
                        .handle_input(now, Input::ConnectFailed { conn, error: &error });
                }
            }
            Event::Accepted { stream, remote } => self.accepted(stream, remote),
            Event::Config(config) => self.reload(config),
            Event::Intent(intent) => self.set_intent(intent),
            Event::Ask(ask) => self.answer(ask),
        }
    }

    /// Does everything that the engine wants.
    fn flush(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.metrics_due
                .get_or_insert_with(|| Instant::now() + METRICS_EVERY);
            match output {
                Output::Send { conn, bytes } => {
                    if let Some(Link::Up(connection)) = self.links.get(&conn) {
                        connection.send(bytes);
                    }
                }
                Output::Connect { peer, conn, remote } => self.connect(peer, conn, remote),
                Output::Close { conn } => {
                    self.links.remove(&conn);
                }
                told => self.log.output(&told, &self.peers),
            }
        }
    }

    fn connect(&mut self, peer: PeerId, conn: ConnId, remote: SocketAddr) {
        let Some(socket) = self.peers.socket(peer) else {
            return;
        };
        let dial = Dial::start(conn, remote, socket, self.events.sender.clone());
        self.links.insert(conn, Link::Dialing(dial));
    }

    fn connected(&mut self, conn: ConnId, stream: TcpStream) {
        // Given up meanwhile: the engine does not know it any more.
        let Some(Link::Dialing(_)) = self.links.get(&conn) else {
            return;
        };
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(remote)) => {
                self.learn_next_hop(local, remote);
                let connection = Connection::start(conn, stream, self.events.sender.clone());
                self.links.insert(conn, Link::Up(connection));
                self.engine
                    .handle_input(self.started.elapsed(), Input::Connected { conn, local });
            }
            (Err(error), _) | (_, Err(error)) => {
                self.links.remove(&conn);
                let error = error.to_string();
                let failed = Input::ConnectFailed { conn, error: &error };
                self.engine.handle_input(self.started.elapsed(), failed);
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        use std::os::fd::AsFd;
        let Ok(local) = stream.local_addr() else { return };
        if let Some(ttl) = self.peers.ttl_of(remote.ip())
            && let Err(error) = socket::prepare_accepted(stream.as_fd(), remote, ttl)
        {
            return self.refuse(remote, error.to_string());
        }
        self.learn_next_hop(local, remote);
        match self.engine.accept(self.started.elapsed(), local, remote) {
            Ok(conn) => {
                let connection = Connection::start(conn, stream, self.events.sender.clone());
                self.links.insert(conn, Link::Up(connection));
            }
            Err(refusal) => self.refuse(remote, refusal.to_string()),
        }
    }

    fn refuse(&mut self, remote: SocketAddr, reason: String) {
        self.metrics.refused_connections.inc();
        self.log.refused(remote.ip(), reason);
    }

    /// Routes of the other family need a next hop that only the session's interface can tell.
    fn learn_next_hop(&mut self, local: SocketAddr, remote: SocketAddr) {
        if let Some(found) = next_hop::beside(local.ip())
            && self.peers.found_next_hop(remote.ip(), found)
        {
            self.push_peers();
        }
    }

    fn set_intent(&mut self, intent: Intent) {
        if intent == self.intent {
            return;
        }
        let begun = std::time::Instant::now();
        log::plan(&self.intent.plan, &intent.plan);
        self.intent = intent;
        self.engine
            .set_routes(self.started.elapsed(), self.intent.routes());
        self.flush();
        self.metrics
            .reconcile_duration
            .observe(begun.elapsed().as_secs_f64());
    }

    fn reload(&mut self, config: Config) {
        if config.local_asn != self.config.local_asn
            || config.router_id.is_some() && config.router_id != Some(self.engine.config().router_id)
        {
            self.metrics.reconcile_errors.inc();
            tracing::error!(
                "localASN and routerID cannot change while sessions run: restart bgp-speaker; the old configuration stays"
            );
            return;
        }
        if let Err(error) = self.set_config(config) {
            self.metrics.reconcile_errors.inc();
            tracing::error!(%error, "the new configuration cannot be used in full");
        }
    }

    fn set_config(&mut self, config: Config) -> anyhow::Result<()> {
        let resets = self.peers.set(&config);
        if let Err(error) = self.listeners.set(&config.listen, self.peers.keys()) {
            self.peers.set(&self.config);
            return Err(error.into());
        }
        let changes = self.push_peers();
        let now = self.started.elapsed();
        for (peer, reason) in resets {
            if !matches!(changes.get(&peer), Some(PeerChange::Reset(_) | PeerChange::Added)) {
                tracing::info!(
                    peer = self.peers.name(peer),
                    reason,
                    "session is reset for its new configuration"
                );
                self.engine.reset(now, peer, reason);
            }
        }
        self.config = config;
        Ok(())
    }

    fn push_peers(&mut self) -> BTreeMap<PeerId, PeerChange> {
        let peers = self.peers.engine();
        match self.engine.set_peers(self.started.elapsed(), peers) {
            Ok(changes) => {
                log::changes(&changes, &self.peers);
                changes
            }
            Err(error) => {
                self.metrics.reconcile_errors.inc();
                tracing::error!(%error, "the engine refuses the peers; the old ones stay");
                BTreeMap::new()
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        // An asker that went away needs no answer.
        match ask {
            Ask::Peers(answer) => drop(answer.send(view::peers(self.scene()))),
            Ask::Advertisements(answer) => drop(answer.send(view::advertisements(&self.intent.plan))),
            Ask::Routes(query, answer) => drop(answer.send(view::routes(self.scene(), &query))),
            Ask::Reset(name, answer) => {
                let peer = view::find_peer(&self.peers, &name);
                let now = self.now();
                drop(answer.send(peer.map(|peer| self.engine.reset(now, peer, "reset by the operator"))));
            }
            Ask::Refresh(name, answer) => drop(answer.send(self.refresh(&name))),
            Ask::Shutdown(text, answer) => {
                self.stop = Some(Stop::Shutdown(text));
                drop(answer.send(Ok(())));
            }
        }
    }

    fn refresh(&mut self, name: &str) -> Result<(), String> {
        let peer = view::find_peer(&self.peers, name)?;
        let now = self.now();
        let asked = Family::ALL.map(|family| self.engine.request_refresh(now, peer, family));
        if asked.contains(&true) {
            return Ok(());
        }
        Err(format!(
            "peer {name} cannot be asked: its session is down, or it did not offer route refresh (RFC 2918)"
        ))
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            node: &self.node,
            engine: &self.engine,
            peers: &self.peers,
            plan: &self.intent.plan,
            now: self.now(),
        }
    }

    fn refresh_metrics(&mut self) {
        self.metrics_due = None;
        self.metrics.update(&view::peers(self.scene()));
    }

    fn how_to_stop(&self, withdraw: bool) -> Stop {
        // Without Cease, a peer with graceful restart keeps our routes; the datapath keeps forwarding meanwhile.
        match self.peers.graceful() && !withdraw {
            true => Stop::Restart,
            false => Stop::Shutdown("bgp-speaker ends".to_owned()),
        }
    }

    async fn end(mut self) {
        let how = self.stop.take().unwrap_or_else(|| Stop::Shutdown(String::new()));
        tracing::info!(?how, "ending all sessions");
        self.engine.stop(self.started.elapsed(), how);
        let mut closing = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { conn, bytes } => {
                    if let Some(Link::Up(connection)) = self.links.get(&conn) {
                        connection.send(bytes);
                    }
                }
                Output::Close { conn } => {
                    if let Some(Link::Up(connection)) = self.links.remove(&conn) {
                        closing.push(connection.close());
                    }
                }
                _ => {}
            }
        }
        drop(self.events);
        for closed in closing {
            closed.await;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
