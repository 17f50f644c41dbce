//! The shell: sources, probes and the kernel's news on one side, [`Core`] on the other.
//!
//! ```text
//!  manifests ── Source ───────┐
//!  remote clusters ───────────┤               ┌▶ netlink: device, routes, rules
//!  probes (own thread) ───────┼─▶ Core::apply ┼▶ eBPF maps
//!  netlink news ──────────────┘      │        └▶ nft, sysctls
//!                                    └─▶ admin API, metrics (under the same lock)
//! ```
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use isthmus_admin::{AdminServer, serve_tcp};
use isthmus_datapath::{Capacity, Config, Datapath, WithoutBackend};
use isthmus_netlink::{Change, Monitor};
use isthmus_remote_cluster::{Options, RemoteClusters, RemoteSnapshot};
use isthmus_sources::{Settings as SourceSettings, Snapshot, Source};
use isthmus_topology::ClusterId;
use isthmus_tunnel::{Mode, Settings};
use tokio::sync::{mpsc, watch};

use crate::adopted::Adopted;
use crate::args::{Args, MapSize};
use crate::core::{self, Core};
use crate::edge::{self, Masquerade};
use crate::intents::{Intents, Me};
use crate::kernel::Kernel;
use crate::probe::machine::ProbeConfig;
use crate::probe::task::{ProbeEvent, ProbeTask};
use crate::{metrics, views};

/// News of the kernel that come within this time are handled together.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest time between two attempts at something that fails.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the daemon and its admin API share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    core: Arc<Mutex<Core>>,
    pub(crate) probes: Arc<ProbeTask>,
}

impl Shared {
    /// The state, for a moment.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until it is told to end; leaves everything that it has programmed.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let args = Arc::new(args);
    let cluster = ClusterId::new(args.cluster_id, args.max_connected_clusters)?;
    let me = Arc::new(Me {
        cluster,
        max: args.max_connected_clusters,
        node: args.node_name.clone(),
        services: args.services,
    });
    refuse_second(&args)?;
    // Before anything is touched: without manifests there is nothing to do.
    let settings = SourceSettings {
        cluster: args.cluster_name.clone(),
        id: cluster,
        max: me.max,
        default_global_namespace: true,
        state_dir: None,
    };
    let source = Source::directory(&args.manifests, settings).await?;
    let monitor = Monitor::open()?;
    let core = open_core(&args, &me)?;
    let (events, probe_events) = mpsc::unbounded_channel();
    let probe_config = ProbeConfig {
        interval: args.probe_interval,
        failures: args.probe_failures,
        ..ProbeConfig::default()
    };
    let probes = ProbeTask::start(probe_config, core.datapath.alive(), events).context("start the prober")?;
    let shared = Shared {
        core: Arc::new(Mutex::new(core)),
        probes: Arc::new(probes),
    };
    let mut options = Options::new(&args.clustermesh_config, args.cluster_name.clone(), cluster);
    options.max_clusters = me.max;
    let clusters = RemoteClusters::start(options);
    let _admin = serve(&args, &shared, &clusters).await?;
    let (masquerade_results, masquerades) = mpsc::unbounded_channel();
    let shell = Shell {
        me,
        remote: clusters.subscribe(),
        local: source.subscribe(),
        probe_events,
        monitor,
        masquerades,
        masquerade_results,
        masquerade: None,
        masquerade_works: true,
        retry: None,
        plans: 0,
        shared,
    };
    shell.run().await
}

/// Two agents on one node would undo each other's work: the second ends before it touches anything.
fn refuse_second(args: &Args) -> anyhow::Result<()> {
    let socket = &args.admin_socket;
    if std::os::unix::net::UnixStream::connect(socket).is_ok() {
        anyhow::bail!(
            "another daemon already listens there: {}; stop it or choose another --admin-socket",
            socket.display()
        );
    }
    Ok(())
}

fn open_core(args: &Arc<Args>, me: &Me) -> anyhow::Result<Core> {
    let kernel = Kernel::open(Settings {
        mode: Mode::Vxlan {
            port: args.overlay_port,
        },
        device: args.overlay_device.clone(),
        table: args.route_table,
        rule_priority: args.rule_preference,
        protocol: args.route_protocol,
        own_cluster: args.overlay_own_cluster,
        ..Settings::default()
    })?;
    let (uplinks, problems) = core::present_uplinks(&kernel, &args.uplink);
    for problem in &problems {
        tracing::warn!("{problem}");
    }
    let datapath = Datapath::open(Config {
        pin_dir: args.pin_dir.clone(),
        mount_bpffs: true,
        cgroup: args.cgroup.clone(),
        uplinks,
        overlay: None,
        cluster_id: me.cluster.value(),
        without_backend: WithoutBackend::Refuse,
        capacity: match args.map_size {
            MapSize::Small => Capacity::SMALL,
            MapSize::Normal => Capacity::default(),
        },
    })?;
    let held = if datapath.is_adopted() {
        Datapath::inspect(&args.pin_dir)?
    } else {
        None
    };
    let adopted = held.map(Adopted::of).unwrap_or_default();
    tracing::info!(adopted = datapath.is_adopted(), pins = %args.pin_dir.display(), "data path open");
    let mut core = Core::new(Arc::clone(args), kernel, datapath, adopted);
    core.problems.uplinks = problems;
    Ok(core)
}

async fn serve(args: &Args, shared: &Shared, clusters: &RemoteClusters) -> anyhow::Result<AdminServer> {
    let metrics = metrics::registry(shared, clusters);
    let common = views::common_routes(shared, metrics);
    let server = AdminServer::start(&args.admin_socket, views::routes(shared).merge(common.clone())).await?;
    if let Some(address) = args.metrics {
        serve_tcp(address, common).await?;
    }
    Ok(server)
}

/// The loop.
struct Shell {
    me: Arc<Me>,
    local: watch::Receiver<Snapshot>,
    remote: watch::Receiver<Arc<RemoteSnapshot>>,
    probe_events: mpsc::UnboundedReceiver<ProbeEvent>,
    monitor: Monitor,
    masquerades: mpsc::UnboundedReceiver<Result<bool, String>>,
    masquerade_results: mpsc::UnboundedSender<Result<bool, String>>,
    masquerade: Option<Masquerade>,
    masquerade_works: bool,
    retry: Option<(Instant, Duration)>,
    plans: u64,
    shared: Shared,
}

impl Shell {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut news = News::default();
        self.start().await;
        loop {
            let retry = self.retry.map(|(at, _)| at);
            tokio::select! {
                changed = self.local.changed() => {
                    changed.context("the source of manifests has ended")?;
                    self.apply();
                }
                changed = self.remote.changed() => {
                    changed.context("the client of remote clusters has ended")?;
                    self.apply();
                }
                Some(event) = self.probe_events.recv() => {
                    if event == ProbeEvent::Node {
                        self.apply();
                    }
                }
                changes = self.monitor.next() => {
                    let ours = self.shared.core().args.route_table;
                    news.add(&changes.context("the kernel's news have ended")?, ours);
                }
                () = until(news.due) => self.mend(&mut news),
                () = until(retry) => self.retry(),
                Some(result) = self.masquerades.recv() => self.note_masquerade(result),
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        tracing::info!("ending; links, routes, programs and maps stay");
        Ok(())
    }

    /// The first application waits for the masquerade rules: whether they work decides rows.
    async fn start(&mut self) {
        let intents = self.intents();
        let args = Arc::clone(&self.shared.core().args);
        if !args.uplink.is_empty() {
            let wanted = Masquerade::of(&intents, &args);
            let result = edge::load(&wanted).await;
            self.masquerade = Some(wanted);
            self.masquerade_works = result.is_ok();
            self.count_masquerade(result);
        }
        self.apply();
    }

    fn intents(&mut self) -> Intents {
        Intents {
            me: Arc::clone(&self.me),
            local: self.local.borrow_and_update().clone(),
            remote: self.remote.borrow_and_update().clone(),
            dead: core::dead_nodes(&self.shared.probes.report()),
            masquerade: self.masquerade_works,
        }
    }

    fn apply(&mut self) {
        let arrived = Instant::now();
        let intents = self.intents();
        let shared = self.shared.clone();
        let mut core = shared.core();
        core.apply(intents, arrived);
        self.follow_plan(&core);
        self.plan_retry(&core);
    }

    fn mend(&mut self, news: &mut News) {
        let shared = self.shared.clone();
        let mut core = shared.core();
        core.mend_network();
        if news.links {
            core.reattach();
        }
        *news = News::default();
        self.follow_plan(&core);
        self.plan_retry(&core);
    }

    fn retry(&mut self) {
        let shared = self.shared.clone();
        let mut core = shared.core();
        core.mend_network();
        core.reattach();
        core.retry_maps();
        self.follow_plan(&core);
        self.plan_retry(&core);
    }

    fn plan_retry(&mut self, core: &Core) {
        let after = |last: Duration| (last * 2).min(RETRY_MAX);
        self.retry = core.wants_retry().then(|| {
            let delay = self
                .retry
                .map_or(Duration::from_millis(500), |(_, last)| after(last));
            (Instant::now() + delay, delay)
        });
    }

    /// What depends on the plan only changes with it.
    fn follow_plan(&mut self, core: &Core) {
        if self.plans != core.plans {
            self.plans = core.plans;
            self.shared.probes.set_plan(core.probe_plan());
            self.refresh_masquerade(core);
        }
    }

    /// Loads the rules in the background when what they are made from has changed.
    fn refresh_masquerade(&mut self, core: &Core) {
        let (Some(before), Some(intents)) = (&self.masquerade, &core.intents) else {
            return;
        };
        let wanted = Masquerade::of(intents, &core.args);
        if *before == wanted {
            return;
        }
        self.masquerade = Some(wanted.clone());
        let results = self.masquerade_results.clone();
        tokio::spawn(async move { results.send(edge::load(&wanted).await) });
    }

    fn note_masquerade(&mut self, result: Result<bool, String>) {
        let works = result.is_ok();
        self.count_masquerade(result);
        if std::mem::replace(&mut self.masquerade_works, works) != works {
            self.apply();
        }
    }

    fn count_masquerade(&self, result: Result<bool, String>) {
        let mut core = self.shared.core();
        match result {
            Ok(written) => {
                core.writes.nft += u64::from(written);
                core.problems.masquerade.clear();
            }
            Err(problem) => {
                tracing::warn!("{problem}");
                core.problems.masquerade = vec![problem];
            }
        }
    }
}

/// What the kernel has told and nobody has looked at yet.
#[derive(Debug, Default)]
struct News {
    due: Option<Instant>,
    links: bool,
}

impl News {
    fn add(&mut self, changes: &[Change], table: u32) {
        for change in changes {
            match change {
                Change::Link | Change::Everything => self.links = true,
                Change::Address | Change::Rule => {}
                Change::Route { table: t, .. } if *t == table => {}
                Change::Route { .. } => continue,
            }
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
