//! The shell around one remote cluster's machine: carries out what it wants, fills the tables, publishes them.
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;
use isthmus_kvstore::ExportMode;
use isthmus_topology::ClusterName;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster_file::ClusterFile;
use crate::dial::dial;
use crate::machine::{Input, Machine, Output, Settings};
use crate::mirror::Mirror;
use crate::publisher::Publisher;
use crate::session::{Create, Session};
use crate::{ConfigStatus, Options, RemoteClusterStatus, Resource, Synced};

/// How many replies are worked on before what they brought is published.
const BATCH: usize = 32;

type Dialed = Result<(Client, String), String>;

/// The connection, or how far it is.
#[derive(Debug)]
enum Link {
    Down,
    Dialing(AbortOnDropHandle<Dialed>),
    Up(Box<Session>),
}

/// A new configuration of the cluster's connection, and what about it is new.
#[derive(Debug)]
pub(crate) struct Reconfigure {
    pub(crate) file: ClusterFile,
    pub(crate) why: &'static str,
}

/// One remote cluster.
#[derive(Debug)]
pub(crate) struct Task {
    name: ClusterName,
    options: Arc<Options>,
    publisher: Arc<Publisher>,
    file: ClusterFile,
    commands: mpsc::Receiver<Reconfigure>,
    machine: Machine,
    mirror: Mirror,
    link: Link,
    /// Connections attempted: decides which endpoint comes first.
    attempts: usize,
    failures: u64,
    last_failure: Option<Timestamp>,
    ready: bool,
    changed: bool,
    published: Instant,
}

impl Task {
    /// A cluster that is connected to once it runs.
    pub(crate) fn new(
        name: ClusterName,
        file: ClusterFile,
        options: Arc<Options>,
        publisher: Arc<Publisher>,
        commands: mpsc::Receiver<Reconfigure>,
    ) -> Self {
        let now = Instant::now();
        let settings = Settings {
            cluster: name.clone(),
            local: options.cluster.clone(),
            local_id: options.cluster_id,
            max: options.max_clusters,
            cache_ttl: options.cache_ttl,
            timing: options.timing.clone(),
            seed: RandomState::new().hash_one(&name),
        };
        Self {
            machine: Machine::new(settings, now),
            mirror: Mirror::new(name.clone()),
            link: Link::Down,
            attempts: 0,
            failures: 0,
            last_failure: None,
            ready: false,
            changed: true,
            published: now,
            name,
            options,
            publisher,
            file,
            commands,
        }
    }

    /// Runs until the sender of its commands is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let timeout = self.machine.poll_timeout();
            let publish = self
                .changed
                .then(|| self.published + self.options.timing.publish_interval);
            // What is due comes before more input: neither publication nor a timeout can be starved by a flood of changes.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.reconfigure(command),
                    None => return,
                },
                () = until(publish) => {
                    self.publish();
                    continue;
                }
                () = until(timeout) => self.machine.handle_timeout(Instant::now()),
                input = next(&mut self.link, self.options.timing.request_timeout) => self.inputs(input),
            }
            self.work();
        }
    }

    fn reconfigure(&mut self, command: Reconfigure) {
        tracing::info!(cluster = %self.name, why = command.why, "configuration changed, connecting anew");
        self.file = command.file;
        self.machine
            .handle_input(Instant::now(), Input::Reconfigured(command.why));
    }

    /// Hands in what came, and what else is there by now.
    fn inputs(&mut self, first: Input) {
        self.machine.handle_input(Instant::now(), first);
        for _ in 0..BATCH {
            self.work();
            let Link::Up(session) = &mut self.link else {
                return;
            };
            let Some(input) = session.ready() else {
                return;
            };
            self.machine.handle_input(Instant::now(), input);
        }
    }

    /// Carries out what the machine wants.
    fn work(&mut self) {
        self.changed = true;
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
        if self.machine.facts.failures != self.failures {
            self.failures = self.machine.facts.failures;
            self.last_failure = Some(Timestamp::now());
            tracing::warn!(cluster = %self.name, reason = self.machine.facts.last_reason, "remote cluster lost");
        }
        let ready = self.machine.is_ready();
        if ready && !self.ready {
            let state = &self.mirror.state;
            let (nodes, ips, services) = (state.nodes.len(), state.ips.len(), state.services.len());
            tracing::info!(cluster = %self.name, nodes, ips, services, "remote cluster ready");
        }
        self.ready = ready;
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect => self.dial(),
            Output::Disconnect => self.link = Link::Down,
            Output::Reserve(id) => {
                let answer = self.publisher.reserve(&self.name, id);
                self.machine.handle_input(Instant::now(), Input::Reserved(answer));
            }
            Output::Adopt(config) => self.mirror.adopt(config),
            Output::Put {
                resource,
                suffix,
                value,
            } => {
                self.mirror.put(resource, &suffix, &value, Timestamp::now());
            }
            Output::Delete { resource, suffix } => self.mirror.delete(resource, &suffix),
            Output::Clear(resource) => self.mirror.clear(resource),
            Output::List { .. } | Output::ReadConfig | Output::Watch { .. } => self.request(output),
        }
    }

    fn request(&mut self, output: Output) {
        let Link::Up(session) = &mut self.link else {
            return;
        };
        match output {
            Output::List {
                feed,
                key,
                range_end,
                revision,
            } => {
                session.list(feed, key, range_end, revision, self.options.timing.page_size);
            }
            Output::ReadConfig => session.read_config(&self.name),
            Output::Watch {
                key,
                range_end,
                revision,
                ..
            } => {
                session.watch(Create {
                    key,
                    range_end,
                    revision,
                });
            }
            _ => {}
        }
    }

    fn dial(&mut self) {
        let (file, first) = (self.file.clone(), self.attempts);
        let timing = self.options.timing.clone();
        self.attempts += 1;
        let dialing = tokio::spawn(async move { dial(&file, first, &timing).await });
        self.link = Link::Dialing(AbortOnDropHandle::new(dialing));
    }

    fn publish(&mut self) {
        self.mirror.state.status = self.status(Instant::now());
        self.publisher.cluster(self.mirror.state.clone());
        self.published = Instant::now();
        self.changed = false;
    }

    fn status(&self, now: Instant) -> RemoteClusterStatus {
        let (machine, state) = (&self.machine, &self.mirror.state);
        RemoteClusterStatus {
            name: self.name.clone(),
            ready: machine.is_ready(),
            connected: machine.is_connected(),
            status: machine.describe(now),
            num_nodes: state.nodes.len(),
            num_shared_services: state.services.len(),
            num_endpoints: state.ips.len(),
            num_identities: state.identities.len(),
            num_endpoint_slices: state.slices.len(),
            num_service_exports: state.exports.len(),
            num_failures: machine.facts.failures,
            last_failure: self.last_failure,
            synced: synced(machine),
            config: config_status(machine),
            last_failure_reason: machine.facts.last_reason.clone(),
            endpoint: machine.facts.endpoint.clone(),
            num_cache_revocations: machine.facts.revocations,
            num_rejected: state.rejected.total(),
        }
    }
}

fn synced(machine: &Machine) -> Synced {
    let wanted = machine.wanted();
    let has = |resource| machine.facts.synced.contains(&resource);
    let if_wanted = |resource| wanted.contains(&resource).then(|| has(resource));
    Synced {
        nodes: has(Resource::Nodes),
        // Of a cluster that exports slices only, services are made of these.
        services: has(
            if wanted.contains(&Resource::EndpointSlices) && !wanted.contains(&Resource::Services) {
                Resource::EndpointSlices
            } else {
                Resource::Services
            },
        ),
        identities: has(Resource::Identities),
        endpoints: has(Resource::Ips),
        endpoint_slices: if_wanted(Resource::EndpointSlices),
        service_exports: if_wanted(Resource::ServiceExports),
    }
}

fn config_status(machine: &Machine) -> ConfigStatus {
    let Some(config) = machine.config() else {
        return ConfigStatus {
            required: true,
            ..ConfigStatus::default()
        };
    };
    ConfigStatus {
        required: true,
        retrieved: true,
        cluster_id: config.id.value(),
        kvstoremesh: config.cached,
        sync_canaries: config.synced_canaries,
        service_exports_enabled: config.service_exports,
        endpoint_slices_export_mode: match config.slices {
            ExportMode::Services => String::new(),
            ExportMode::ServicesAndEndpointSlices => "services-and-endpointslices".to_owned(),
            ExportMode::EndpointSlicesOnly => "endpointslices-only".to_owned(),
        },
    }
}

/// What comes next over the connection.
async fn next(link: &mut Link, timeout: Duration) -> Input {
    match link {
        Link::Down => std::future::pending().await,
        Link::Dialing(dialing) => {
            let dialed = dialing
                .await
                .unwrap_or_else(|e| Err(format!("the attempt ended early: {e}")));
            match dialed {
                Ok((client, endpoint)) => {
                    *link = Link::Up(Box::new(Session::new(client, timeout)));
                    Input::Connected(endpoint)
                }
                Err(reason) => {
                    *link = Link::Down;
                    Input::ConnectFailed(reason)
                }
            }
        }
        Link::Up(session) => match session.next().await {
            Some(input) => input,
            None => std::future::pending().await,
        },
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
