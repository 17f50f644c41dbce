//! The thread of a directory: waits for the kernel to tell of changes, reads, publishes.
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Config, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::{oneshot, watch};

use crate::directory::{Directory, is_manifest};
use crate::source::SourceError;
use crate::{Settings, Snapshot};

/// Events this close to each other become one snapshot: several files written by one command.
const DEBOUNCE: Duration = Duration::from_millis(1);
/// However many follow each other, a snapshot waits no longer than this.
const DEBOUNCE_MAX: Duration = Duration::from_millis(3);
/// A file that is written to but not closed is read after this time without more writes.
const UNCLOSED: Duration = Duration::from_millis(100);
/// How often to look for a directory that has gone.
const LOST: Duration = Duration::from_secs(1);

/// What wakes the thread.
pub(crate) enum Wake {
    /// The kernel's word.
    Event(notify::Result<Event>),
    /// The source was dropped.
    Stop,
}

/// Starts the thread. Its first snapshot has been published when `ready` answers.
pub(crate) fn start(
    root: &Path,
    settings: Settings,
    snapshots: watch::Sender<Snapshot>,
) -> Result<(Sender<Wake>, oneshot::Receiver<()>), SourceError> {
    let (wake, woken) = channel();
    // The watch comes before the first list, so that no change is lost between them.
    let watcher = watch_directory(root, &wake)?;
    let (ready, is_ready) = oneshot::channel();
    let mut thread = Thread {
        root: root.to_owned(),
        wake: wake.clone(),
        watcher: Some(watcher),
        directory: Directory::new(root, settings),
        unclosed: Vec::new(),
        snapshots,
    };
    let body = move || {
        thread.directory.rescan();
        thread.publish();
        let _ = ready.send(());
        thread.run(&woken);
    };
    let spawned = std::thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(body);
    spawned.map_err(|error| SourceError::watch(root, error))?;
    Ok((wake, is_ready))
}

fn watch_directory(root: &Path, wake: &Sender<Wake>) -> Result<INotifyWatcher, SourceError> {
    let wake = wake.clone();
    let handler = move |event| {
        // The thread has ended: nobody wants to know any more.
        let _ = wake.send(Wake::Event(event));
    };
    let refused = |error: notify::Error| match error.kind {
        notify::ErrorKind::MaxFilesWatch => SourceError::watch(
            root,
            "too many directories are watched: raise fs.inotify.max_user_watches",
        ),
        _ => SourceError::watch(root, error),
    };
    let mut watcher = INotifyWatcher::new(handler, Config::default()).map_err(refused)?;
    watcher.watch(root, RecursiveMode::Recursive).map_err(refused)?;
    Ok(watcher)
}

struct Thread {
    root: PathBuf,
    wake: Sender<Wake>,
    watcher: Option<INotifyWatcher>,
    directory: Directory,
    /// Files that are being written, with the time at which they are read even if they are not closed.
    unclosed: Vec<(PathBuf, Instant)>,
    snapshots: watch::Sender<Snapshot>,
}

/// What a batch of events asks for.
#[derive(Default)]
struct Batch {
    paths: BTreeSet<PathBuf>,
    everything: bool,
    stop: bool,
}

impl Thread {
    fn run(&mut self, woken: &Receiver<Wake>) {
        loop {
            let batch = self.next_batch(woken);
            if batch.stop {
                return;
            }
            if self.directory.is_lost() || !self.root.exists() {
                self.watcher = watch_directory(&self.root, &self.wake).ok();
                self.directory.rescan();
            } else if batch.everything {
                self.directory.rescan();
            } else {
                self.directory.refresh(&batch.paths);
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        if let Some(snapshot) = self.directory.publish(Timestamp::now()) {
            self.snapshots.send_replace(snapshot);
        }
    }

    /// Waits for something to do, and a little longer for what belongs to it.
    fn next_batch(&mut self, woken: &Receiver<Wake>) -> Batch {
        let mut batch = Batch::default();
        let mut until: Option<(Instant, Instant)> = None;
        loop {
            let now = Instant::now();
            let quiet = until.map(|(quiet, last)| quiet.min(last));
            let unclosed = self.unclosed.iter().map(|(_, at)| *at).min();
            let lost = self.directory.is_lost().then_some(now + LOST);
            let deadline = quiet.into_iter().chain(unclosed).chain(lost).min();
            let waited = match deadline {
                Some(at) => woken.recv_timeout(at.saturating_duration_since(now)),
                None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match waited {
                Ok(Wake::Event(event)) => {
                    if self.sort(event, &mut batch) {
                        let now = Instant::now();
                        let last = until.map_or(now + DEBOUNCE_MAX, |(_, last)| last);
                        until = Some((now + DEBOUNCE, last));
                    }
                }
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    batch.stop = true;
                    return batch;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.take_unclosed(&mut batch);
                    return batch;
                }
            }
        }
    }

    fn take_unclosed(&mut self, batch: &mut Batch) {
        let now = Instant::now();
        self.unclosed.retain(|(path, at)| {
            let due = *at <= now;
            if due {
                batch.paths.insert(path.clone());
            }
            !due
        });
    }

    /// Puts an event into the batch; false if it asks for nothing yet.
    fn sort(&mut self, event: notify::Result<Event>, batch: &mut Batch) -> bool {
        let Ok(event) = event else {
            batch.everything = true;
            return true;
        };
        if event.need_rescan() {
            batch.everything = true;
            return true;
        }
        let mut asks = false;
        for path in &event.paths {
            asks |= self.sort_path(event.kind, path, batch);
        }
        asks
    }

    fn sort_path(&mut self, kind: EventKind, path: &Path, batch: &mut Batch) -> bool {
        let is_closed = match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => true,
            EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) => true,
            // A file that is made by writing it will be closed; a link or a directory will not.
            EventKind::Create(CreateKind::File) => is_link(path),
            EventKind::Create(_) => true,
            EventKind::Modify(_) => false,
            EventKind::Access(_) | EventKind::Any | EventKind::Other => return false,
        };
        let is_directory = !is_manifest(path);
        self.unclosed.retain(|(waiting, _)| waiting != path);
        if !is_closed {
            if !is_directory {
                self.unclosed.push((path.to_owned(), Instant::now() + UNCLOSED));
            }
            return false;
        }
        // The kubelet swaps the link `..data` under the links to the files.
        batch.everything |= path.file_name().is_some_and(|name| name == "..data") || path == self.root;
        batch.paths.insert(path.to_owned());
        true
    }
}

/// True for symbolic links and for further names of a file.
fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink() || m.nlink() > 1)
}
