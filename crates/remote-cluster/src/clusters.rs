//! The remote clusters of one agent: follows the configuration directory and publishes what all of them export.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isthmus_topology::ClusterName;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::cluster_file::ClusterFile;
use crate::directory::{Configured, Directory};
use crate::publisher::Publisher;
use crate::task::{Reconfigure, Task};
use crate::{Gauge, Options, RemoteSnapshot};

/// Changes of files come in bursts: the directory is read when there was none for so long.
const QUIET: Duration = Duration::from_millis(20);

/// The remote clusters of this node. Dropping it ends all connections.
#[derive(Debug)]
pub struct RemoteClusters {
    publisher: Arc<Publisher>,
    _manager: AbortOnDropHandle<()>,
}

impl RemoteClusters {
    /// Starts to follow the configuration directory (it may appear later) and every cluster in it. Needs a tokio runtime.
    pub fn start(options: Options) -> Self {
        tracing::info!(directory = %options.directory.display(), "following remote clusters");
        let publisher = Arc::new(Publisher::new());
        let manager = Manager::new(Arc::new(options), Arc::clone(&publisher));
        let manager = tokio::spawn(manager.run());
        Self {
            publisher,
            _manager: AbortOnDropHandle::new(manager),
        }
    }

    /// The published snapshots: `changed().await`, then `borrow_and_update().clone()`. Slow readers see the newest only and
    /// miss nothing, because they compare tables with [`crate::Table::diff`].
    pub fn subscribe(&self) -> watch::Receiver<Arc<RemoteSnapshot>> {
        self.publisher.subscribe()
    }

    /// What is measured, for a daemon's registry: an agent puts `cilium_clustermesh_` before the names.
    pub fn gauges(&self) -> Vec<Gauge> {
        Gauge::all(&self.publisher.subscribe())
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<RemoteSnapshot> {
        self.publisher.snapshot()
    }
}

/// A cluster that is being followed.
#[derive(Debug)]
struct Running {
    configured: Configured,
    commands: mpsc::Sender<Reconfigure>,
    task: AbortOnDropHandle<()>,
}

/// Starts, reconfigures and ends the tasks of the clusters as the directory says.
#[derive(Debug)]
struct Manager {
    options: Arc<Options>,
    publisher: Arc<Publisher>,
    directory: Directory,
    running: BTreeMap<ClusterName, Running>,
}

impl Manager {
    fn new(options: Arc<Options>, publisher: Arc<Publisher>) -> Self {
        Self {
            directory: Directory::new(&options.directory, &options.cluster),
            options,
            publisher,
            running: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        let (poke, mut poked) = mpsc::channel(1);
        let mut files = Files::new(poke);
        loop {
            // Watched first, then read: a change between the two is seen.
            files.follow(&self.options.directory, self.running.values());
            self.read().await;
            files.follow(&self.options.directory, self.running.values());
            let rescan = tokio::time::timeout(self.options.timing.rescan_interval, poked.recv());
            if rescan.await.is_ok() {
                while tokio::time::timeout(QUIET, poked.recv()).await.is_ok() {}
            }
        }
    }

    async fn read(&mut self) {
        let mut directory = std::mem::take(&mut self.directory);
        let read = tokio::task::spawn_blocking(move || {
            directory.read();
            directory
        });
        match read.await {
            Ok(directory) => self.directory = directory,
            Err(error) => {
                tracing::error!(%error, "the configuration directory could not be read");
                self.directory = Directory::new(&self.options.directory, &self.options.cluster);
                return;
            }
        }
        let wanted = self.directory.clusters.clone();
        let gone: Vec<_> = self
            .running
            .keys()
            .filter(|name| !wanted.contains_key(name))
            .cloned()
            .collect();
        for name in gone {
            self.stop(&name).await;
        }
        for (name, configured) in wanted {
            self.follow(name, configured).await;
        }
        let told = self.publisher.snapshot();
        for problem in self
            .directory
            .problems
            .iter()
            .filter(|p| !told.problems.contains(p))
        {
            tracing::warn!(file = %problem.file.display(), reason = problem.reason, "configuration not used");
        }
        self.publisher.configured(self.directory.problems.clone());
    }

    /// Ends a cluster that left the configuration: with it go all its entries and its id.
    async fn stop(&mut self, name: &ClusterName) {
        if let Some(running) = self.running.remove(name) {
            tracing::info!(cluster = %name, "removed from the configuration, its entries are dropped");
            drop(running.commands);
            // It publishes nothing any more once it has ended.
            drop(running.task.await);
            self.publisher.remove(name);
        }
    }

    async fn follow(&mut self, name: ClusterName, configured: Configured) {
        if let Some(running) = self.running.get_mut(&name) {
            if let Some(why) = difference(&running.configured, &configured) {
                let file = configured.file.clone();
                // A task that takes no commands has ended, which it never does by itself.
                drop(running.commands.send(Reconfigure { file, why }).await);
                running.configured = configured;
            }
            return;
        }
        let (commands, received) = mpsc::channel(1);
        let file: ClusterFile = configured.file.clone();
        let (options, publisher) = (Arc::clone(&self.options), Arc::clone(&self.publisher));
        publisher.cluster(crate::RemoteClusterState::new(name.clone()));
        let task = Task::new(name.clone(), file, options, publisher, received);
        let running = Running {
            configured,
            commands,
            task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        };
        self.running.insert(name, running);
    }
}

fn difference(old: &Configured, new: &Configured) -> Option<&'static str> {
    if old.file != new.file {
        Some("its configuration file changed")
    } else if old.material != new.material {
        Some("its certificate files changed")
    } else {
        None
    }
}

/// Says when something changed in the directories of interest.
struct Files {
    watcher: Option<RecommendedWatcher>,
    followed: BTreeSet<PathBuf>,
}

impl Files {
    fn new(poke: mpsc::Sender<()>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Our own reading opens files; only what changes them matters.
            let matters = event.map_or(true, |event| match event.kind {
                EventKind::Access(access) => {
                    access == notify::event::AccessKind::Close(notify::event::AccessMode::Write)
                }
                _ => true,
            });
            if matters {
                // A full channel already says it.
                let _ = poke.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files cannot be watched; they are read at intervals instead");
        }
        Self {
            watcher: watcher.ok(),
            followed: BTreeSet::new(),
        }
    }

    /// Watches the directory, or what there is of the path to it, and those of the certificate files.
    fn follow<'a>(&mut self, directory: &Path, clusters: impl Iterator<Item = &'a Running>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut wanted: BTreeSet<PathBuf> = directory
            .ancestors()
            .find(|p| p.is_dir())
            .map(Into::into)
            .into_iter()
            .collect();
        for tls in clusters.filter_map(|running| running.configured.file.tls.as_ref()) {
            let files = [&tls.pair.certificate, &tls.pair.key, &tls.bundle];
            wanted.extend(files.iter().filter_map(|file| file.parent()).map(Path::to_owned));
        }
        for path in self.followed.difference(&wanted) {
            // It may be gone, and its watch with it.
            drop(watcher.unwatch(path));
        }
        // A directory that was replaced has lost its watch without a trace here: watching again costs nothing.
        self.followed = wanted
            .into_iter()
            .filter(|path| watcher.watch(path, RecursiveMode::NonRecursive).is_ok())
            .collect();
    }
}
