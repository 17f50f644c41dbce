//! Reads the files of a directory into a [`Resolver`], and keeps what was good when a file breaks.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::fault::Fault;
use crate::objects::Origin;
use crate::parse::{Loose, Parsed, parse_file};
use crate::problems::Problems;
use crate::remember;
use crate::resolve::Resolver;
use crate::{Ignored, Raw, Settings, Snapshot};

/// Deeper than anybody nests manifests; ends cycles of symbolic links.
const MAX_DEPTH: usize = 16;

type Stamp = (i64, i64, u64, u64);

/// What is known of one file.
#[derive(Debug, Default)]
struct File {
    /// What tells without reading whether it changed: time in seconds and nanoseconds, size, inode.
    stamp: Stamp,
    /// What tells whether its content changed.
    hash: u64,
    faults: Vec<Fault>,
    /// It has been without fault at least once.
    was_good: bool,
    raw: Vec<(Loose, Arc<Value>, u32)>,
    ignored: Vec<(Loose, u32)>,
}

/// A directory of manifests and the tables made of it.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    settings: Settings,
    resolver: Resolver,
    files: BTreeMap<Arc<Path>, File>,
    /// Why the directory itself cannot be read, while it cannot.
    lost: Option<String>,
    /// Files with faults, and files that have never been without.
    faulty: BTreeSet<Arc<Path>>,
    never_good: BTreeSet<Arc<Path>>,
    /// Why the remembered identities could not be read, and why they cannot be written.
    forgot: Option<String>,
    forgetful: Option<String>,
    loose_changed: bool,
    loose_doubles: Vec<(Arc<Path>, Fault)>,
    problems: Problems,
    published: Snapshot,
}

impl Directory {
    /// Reads nothing yet.
    pub(crate) fn new(root: &Path, settings: Settings) -> Self {
        let (remembered, forgot) = match remember::read(settings.state_dir.as_deref()) {
            Ok(remembered) => (remembered, None),
            Err(reason) => (BTreeMap::new(), Some(reason)),
        };
        Self {
            root: root.to_owned(),
            resolver: Resolver::new(settings.clone(), remembered),
            settings,
            files: BTreeMap::new(),
            lost: None,
            faulty: BTreeSet::new(),
            never_good: BTreeSet::new(),
            forgot,
            forgetful: None,
            loose_changed: false,
            loose_doubles: Vec::new(),
            problems: Problems::default(),
            published: Snapshot::default(),
        }
    }

    /// True while the directory itself cannot be read: what it held stays in force.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Looks at every file, reads those that changed, and forgets those that are gone.
    pub(crate) fn rescan(&mut self) {
        let read = self.read_below(&self.root.clone());
        let told = |error| format!("the directory cannot be read, what it held stays in force: {error}");
        self.lost = read.err().map(told);
    }

    /// Looks at some paths only: files, or directories with everything in them.
    pub(crate) fn refresh(&mut self, paths: &BTreeSet<PathBuf>) {
        for path in paths {
            match std::fs::metadata(path) {
                // If it vanishes now, its own event is on the way.
                Ok(metadata) if metadata.is_dir() => drop(self.read_below(path)),
                Ok(metadata) if is_manifest(path) => self.load(&Arc::from(path.as_path()), &metadata),
                Ok(_) => {}
                Err(_) => self.forget_below(path, &BTreeMap::new()),
            }
        }
    }

    fn read_below(&mut self, directory: &Path) -> std::io::Result<()> {
        let mut found = BTreeMap::new();
        walk(directory, MAX_DEPTH, &mut found)?;
        self.forget_below(directory, &found);
        for (path, metadata) in found {
            if self
                .files
                .get(&path)
                .is_none_or(|file| file.stamp != stamp(&metadata))
            {
                self.load(&path, &metadata);
            }
        }
        Ok(())
    }

    fn forget_below(&mut self, path: &Path, found: &BTreeMap<Arc<Path>, Metadata>) {
        let below = self.files.keys().filter(|file| file.starts_with(path));
        let gone: Vec<_> = below.filter(|file| !found.contains_key(*file)).cloned().collect();
        gone.iter().for_each(|file| self.forget(file));
    }

    fn forget(&mut self, path: &Arc<Path>) {
        self.resolver.objects.remove_file(path);
        let file = self.files.remove(path);
        self.faulty.remove(path);
        self.never_good.remove(path);
        self.loose_changed |= file.is_some_and(|file| !(file.raw.is_empty() && file.ignored.is_empty()));
    }

    /// Reads a file, whatever its stamp says: two writes within one tick of the clock look alike.
    fn load(&mut self, path: &Arc<Path>, metadata: &Metadata) {
        let read = std::fs::read(path);
        let mut hasher = DefaultHasher::new();
        read.as_ref().ok().hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(file) = self.files.get_mut(path) {
            file.stamp = stamp(metadata);
            if file.hash == hash && read.is_ok() {
                return;
            }
        }
        let parsed = match read {
            Ok(bytes) => parse_bytes(&bytes, &self.settings),
            Err(error) => fault(0, 0, format!("cannot be read: {error}")),
        };
        let written = Timestamp::new(metadata.mtime(), 0).unwrap_or(Timestamp::UNIX_EPOCH);
        let before = self.files.remove(path).unwrap_or_default();
        let file = self.take(path, parsed, before, written);
        note(&mut self.faulty, path, !file.faults.is_empty());
        note(&mut self.never_good, path, !file.was_good);
        self.files.insert(
            path.clone(),
            File {
                stamp: stamp(metadata),
                hash,
                ..file
            },
        );
    }

    /// A file without fault replaces what it held before. A broken one only adds: whatever of the old is not among what could
    /// be read stays in force.
    fn take(&mut self, path: &Arc<Path>, parsed: Parsed, before: File, written: Timestamp) -> File {
        let Parsed {
            mut objects,
            raw,
            ignored,
            faults,
        } = parsed;
        let mut raw: Vec<_> = raw
            .into_iter()
            .map(|(loose, value, line)| (loose, Arc::new(value), line))
            .collect();
        let good = faults.is_empty();
        if !good {
            let read: BTreeSet<_> = objects.iter().map(|(key, ..)| key.clone()).collect();
            let old = self
                .resolver
                .objects
                .of_file(path)
                .filter(|(key, _)| !read.contains(key));
            let kept = old.map(|(key, placed)| (key.clone(), (*placed.object).clone(), placed.line));
            let kept: Vec<_> = kept.collect();
            objects.extend(kept);
            let kept = before
                .raw
                .iter()
                .filter(|(old, ..)| raw.iter().all(|(new, ..)| new != old))
                .cloned();
            let kept: Vec<_> = kept.collect();
            raw.extend(kept);
        }
        let file = path.clone();
        let origin = Arc::new(Origin { file, written });
        self.resolver.objects.replace_file(&origin, objects);
        self.loose_changed |= raw != before.raw || ignored != before.ignored;
        File {
            faults,
            was_good: good || before.was_good,
            raw,
            ignored,
            ..File::default()
        }
    }

    /// The tables as they are now, if anything is different from the last time.
    pub(crate) fn publish(&mut self, now: Timestamp) -> Option<Snapshot> {
        let mut snapshot = self.resolver.resolve();
        self.remember_identities();
        if std::mem::take(&mut self.loose_changed) {
            (snapshot.raw, snapshot.ignored) = (Arc::new(self.all_raw()), Arc::new(self.all_ignored()));
            self.loose_doubles = self.raw_doubles();
        } else {
            (snapshot.raw, snapshot.ignored) = (self.published.raw.clone(), self.published.ignored.clone());
        }
        let problems = self.problems.update(self.all_faults(), now);
        snapshot.problems = problems;
        snapshot.complete = self.published.complete || self.lost.is_none();
        snapshot.partial = !self.never_good.is_empty();
        snapshot.revision = self.published.revision;
        if is_same(&snapshot, &self.published) {
            return None;
        }
        snapshot.revision += 1;
        self.published = snapshot.clone();
        Some(snapshot)
    }

    fn remember_identities(&mut self) {
        let given = self.resolver.take_given_identities();
        if let (Some(given), Some(dir)) = (given, &self.settings.state_dir) {
            self.forgetful = remember::write(dir, &given).err();
        }
    }

    fn all_faults(&self) -> Vec<(Arc<Path>, Fault)> {
        let mut faults = Vec::new();
        for (path, file) in self
            .faulty
            .iter()
            .filter_map(|path| self.files.get_key_value(path))
        {
            faults.extend(file.faults.iter().map(|fault| (path.clone(), fault.clone())));
        }
        let conflicts = self.resolver.conflicts().into_iter();
        faults.extend(conflicts.map(|c| {
            (
                c.file,
                Fault {
                    line: c.line,
                    column: 0,
                    reason: c.reason,
                },
            )
        }));
        let whole = |reason: &String| Fault {
            line: 0,
            column: 0,
            reason: reason.clone(),
        };
        faults.extend(
            self.lost
                .iter()
                .map(|reason| (Arc::from(self.root.as_path()), whole(reason))),
        );
        let state_dir = self.settings.state_dir.as_deref().unwrap_or(Path::new(""));
        let forgotten = self.forgot.iter().chain(&self.forgetful);
        faults.extend(forgotten.map(|reason| (Arc::from(state_dir), whole(reason))));
        faults.extend(self.loose_doubles.iter().cloned());
        faults.sort_by(|(a, x), (b, y)| {
            (a, x.line, x.column, &x.reason).cmp(&(b, y.line, y.column, &y.reason))
        });
        faults
    }

    fn all_raw(&self) -> Vec<Raw> {
        let mut raw = BTreeMap::new();
        for (path, loose, value, line) in self.each_raw() {
            raw.entry(loose.clone()).or_insert_with(|| Raw {
                api_version: loose.api_version.clone(),
                kind: loose.kind.clone(),
                namespace: loose.namespace.clone(),
                name: loose.name.clone(),
                json: Value::clone(value),
                file: path.clone(),
                line,
            });
        }
        let mut raw: Vec<_> = raw.into_values().collect();
        raw.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
        raw
    }

    fn each_raw(&self) -> impl Iterator<Item = (&Arc<Path>, &Loose, &Arc<Value>, u32)> {
        let files = self.files.iter();
        files.flat_map(|(path, file)| {
            file.raw
                .iter()
                .map(move |(loose, value, line)| (path, loose, value, *line))
        })
    }

    fn raw_doubles(&self) -> Vec<(Arc<Path>, Fault)> {
        let mut first: BTreeMap<&Loose, (&Arc<Path>, u32)> = BTreeMap::new();
        let mut doubles = Vec::new();
        for (path, loose, _, line) in self.each_raw() {
            let Some((other, at)) = first.get(loose) else {
                first.insert(loose, (path, line));
                continue;
            };
            let (kind, name, other) = (&loose.kind, &loose.name, other.display());
            let reason = format!("{kind} {name} is also in {other}:{at}, which counts: remove one of them");
            doubles.push((
                path.clone(),
                Fault {
                    line,
                    column: 0,
                    reason,
                },
            ));
        }
        doubles
    }

    fn all_ignored(&self) -> Vec<Ignored> {
        let mut all = Vec::new();
        for (path, file) in &self.files {
            all.extend(file.ignored.iter().map(|(loose, line)| Ignored {
                api_version: loose.api_version.clone(),
                kind: loose.kind.clone(),
                name: match loose.namespace.as_str() {
                    "" => loose.name.clone(),
                    namespace => format!("{namespace}/{}", loose.name),
                },
                file: path.clone(),
                line: *line,
            }));
        }
        all
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
        metadata.ino(),
    )
}

fn note(set: &mut BTreeSet<Arc<Path>>, path: &Arc<Path>, belongs: bool) {
    if belongs {
        set.insert(path.clone());
    } else {
        set.remove(path);
    }
}

fn is_same(a: &Snapshot, b: &Snapshot) -> bool {
    (a.complete, a.partial) == (b.complete, b.partial)
        && b.revision > 0
        && Arc::ptr_eq(&a.nodes, &b.nodes)
        && Arc::ptr_eq(&a.namespaces, &b.namespaces)
        && Arc::ptr_eq(&a.identities, &b.identities)
        && Arc::ptr_eq(&a.ips, &b.ips)
        && Arc::ptr_eq(&a.services, &b.services)
        && Arc::ptr_eq(&a.slices, &b.slices)
        && Arc::ptr_eq(&a.service_exports, &b.service_exports)
        && a.raw == b.raw
        && a.ignored == b.ignored
        && a.problems == b.problems
}

fn fault(line: u32, column: u32, reason: String) -> Parsed {
    Parsed {
        faults: vec![Fault { line, column, reason }],
        ..Parsed::default()
    }
}

fn parse_bytes(bytes: &[u8], settings: &Settings) -> Parsed {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_file(text, settings),
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = good.iter().filter(|b| **b == b'\n').count() + 1;
            let reason = "not UTF-8: save the file as UTF-8".to_owned();
            fault(u32::try_from(line).unwrap_or(u32::MAX), 0, reason)
        }
    }
}

/// Manifests end in .yaml, .yml or .json; what begins with a dot is an editor's or the kubelet's.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    !hidden && matches!(extension, "yaml" | "yml" | "json")
}

/// Manifests of a directory and of those in it. What vanishes meanwhile is left out.
fn walk(directory: &Path, depth: usize, found: &mut BTreeMap<Arc<Path>, Metadata>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth > 0 && !hidden {
            // A subdirectory that cannot be read must not hide the rest.
            let _ = walk(&path, depth - 1, found);
        } else if metadata.is_file() && is_manifest(&path) {
            found.insert(path.into(), metadata);
        }
    }
    Ok(())
}
