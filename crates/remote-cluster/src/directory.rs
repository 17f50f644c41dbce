//! The configuration directory (spec §3.1): which clusters there are, and what of each has changed.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isthmus_topology::ClusterName;
use isthmus_trust::TlsFiles;

use crate::ConfigProblem;
use crate::cluster_file::{ClusterFile, FileError, MARK};

/// A cluster of the directory, with the contents of its certificate files as they were then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configured {
    /// How to reach it.
    pub(crate) file: ClusterFile,
    /// What certificate, key and bundle held; none where a file could not be read.
    pub(crate) material: [Option<Vec<u8>>; 3],
}

/// The clusters of the directory, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    path: PathBuf,
    own: Option<ClusterName>,
    /// The clusters in use: as their files say now, or as they last said before they became unusable.
    pub(crate) clusters: BTreeMap<ClusterName, Configured>,
    /// What is wrong.
    pub(crate) problems: Vec<ConfigProblem>,
}

impl Directory {
    /// A directory that has not been read yet.
    pub(crate) fn new(path: &Path, own: &ClusterName) -> Self {
        Self {
            path: path.to_owned(),
            own: Some(own.clone()),
            ..Self::default()
        }
    }

    /// Reads the directory again. What cannot be used does not replace what is in use.
    pub(crate) fn read(&mut self) {
        self.problems.clear();
        let files = match files(&self.path) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.clusters.is_empty() => return,
            Err(error) => {
                let reason = format!("cannot be read: {error}; the clusters known from before stay");
                return self.problem(&self.path.clone(), reason, !self.clusters.is_empty());
            }
        };
        let mut present = BTreeMap::new();
        for (name, path) in files {
            if let Some((cluster, configured)) = self.read_file(&name, &path) {
                present.insert(cluster, configured);
            }
        }
        self.clusters = present;
    }

    fn problem(&mut self, file: &Path, reason: String, last_good_in_use: bool) {
        self.problems.push(ConfigProblem {
            file: file.to_owned(),
            reason,
            last_good_in_use,
        });
    }

    /// The cluster that a file describes, if it does: as it is, or as it was when it could be used.
    fn read_file(&mut self, name: &str, path: &Path) -> Option<(ClusterName, Configured)> {
        let cluster = ClusterName::new(name);
        let before = cluster
            .as_ref()
            .ok()
            .and_then(|cluster| self.clusters.get(cluster))
            .cloned();
        let text = fs::read(path).map_err(|e| FileError::Unreadable(e.to_string()));
        let text = match text {
            Ok(bytes) if !contains(&bytes, MARK.as_bytes()) => {
                let (cluster, before) = (cluster.ok()?, before?);
                let reason =
                    format!("has no {MARK:?} any more; delete the file if the cluster is to be removed");
                self.problem(path, reason, true);
                return Some((cluster, before));
            }
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| FileError::NotText),
            Err(error) => Err(error),
        };
        let cluster = match cluster {
            Ok(cluster) if Some(&cluster) == self.own.as_ref() => {
                let reason = format!("describes the local cluster {cluster}: it is skipped");
                self.problem(path, reason, false);
                return None;
            }
            Ok(cluster) => cluster,
            Err(error) => {
                // A certificate that cannot be read is no cluster; whoever needs it will say so.
                if text.is_ok() {
                    self.problem(path, format!("is skipped: {error}; rename the file"), false);
                }
                return None;
            }
        };
        match text.and_then(|text| ClusterFile::parse(&text, &self.path)) {
            Ok(file) => {
                let material = material(file.tls.as_ref());
                Some((cluster, Configured { file, material }))
            }
            Err(error) => {
                self.problem(path, error.to_string(), before.is_some());
                before.map(|before| (cluster, before))
            }
        }
    }
}

/// Names and paths of the regular files (links are followed, as Kubernetes mounts Secrets), in order of their names.
fn files(directory: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let hidden = name.is_none_or(|name| name.starts_with('.'));
        if let Some(name) = name
            && !hidden
            && fs::metadata(&path).is_ok_and(|meta| meta.is_file())
        {
            files.insert(name.to_owned(), path.clone());
        }
    }
    Ok(files)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn material(tls: Option<&TlsFiles>) -> [Option<Vec<u8>>; 3] {
    let Some(tls) = tls else {
        return [None, None, None];
    };
    [&tls.pair.certificate, &tls.pair.key, &tls.bundle].map(|file| fs::read(file).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "endpoints: [\"http://192.0.2.1:2379\"]\n";
    const OTHER: &str = "endpoints: [\"http://192.0.2.2:2379\"]\n";

    struct Rig {
        dir: tempfile::TempDir,
        directory: Directory,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let own = ClusterName::new("east").expect("name");
            let directory = Directory::new(dir.path(), &own);
            Self { dir, directory }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).expect("written");
        }

        fn remove(&self, name: &str) {
            fs::remove_file(self.dir.path().join(name)).expect("removed");
        }

        /// The clusters, with the last byte of their first address.
        fn read(&mut self) -> Vec<String> {
            self.directory.read();
            let show = |(name, c): (&ClusterName, &Configured)| {
                let host = &c.file.endpoints[0].host;
                format!("{name}={}", host.rsplit('.').next().unwrap_or_default())
            };
            self.directory.clusters.iter().map(show).collect()
        }

        fn problem(&self) -> String {
            let problems = self.directory.problems.iter().map(|p| p.reason.as_str());
            problems.collect::<Vec<_>>().join(" | ")
        }
    }

    #[test]
    fn every_file_that_lists_endpoints_is_a_cluster() {
        let mut rig = Rig::new();
        rig.write("west", GOOD);
        rig.write("north", OTHER);
        rig.write("common-etcd-client-ca.crt", "-----BEGIN CERTIFICATE-----");
        rig.write(".swp", GOOD);
        fs::create_dir(rig.dir.path().join("..data")).expect("made");
        assert_eq!(rig.read(), ["north=2", "west=1"]);
        assert_eq!(rig.problem(), "");
        rig.remove("north");
        assert_eq!(rig.read(), ["west=1"]);
    }

    #[test]
    fn the_own_name_and_names_that_are_not_valid_are_skipped_with_a_reason() {
        let mut rig = Rig::new();
        rig.write("east", GOOD);
        rig.write("North_1", GOOD);
        rig.write("default", GOOD);
        assert_eq!(rig.read(), [""; 0]);
        let problem = rig.problem();
        for part in [
            "local cluster east",
            "\"North_1\" is not valid",
            "\"default\" is reserved",
        ] {
            assert!(problem.contains(part), "{problem}");
        }
    }

    /// west is edited badly in three ways, then well: it changes only with the last.
    #[test]
    fn a_file_that_cannot_be_used_leaves_the_last_good_one() {
        let mut rig = Rig::new();
        rig.write("west", GOOD);
        rig.write("north", "endpoints: [\n");
        assert_eq!(rig.read(), ["west=1"]);
        assert!(rig.problem().contains("line "), "{}", rig.problem());
        assert!(!rig.directory.problems[0].last_good_in_use);
        rig.remove("north");
        for (text, reason) in [
            ("endpoints: [\"http://192.0.2.2\"]", "no port"),
            ("", "any more"),
            ("endpoints: {", "line"),
        ] {
            rig.write("west", text);
            assert_eq!(rig.read(), ["west=1"], "{text:?}");
            assert!(rig.problem().contains(reason), "{}", rig.problem());
            assert!(rig.directory.problems[0].last_good_in_use);
        }
        rig.write("west", OTHER);
        assert_eq!(rig.read(), ["west=2"]);
        assert_eq!(rig.problem(), "");
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty_but_one_that_goes_away_is_a_fault() {
        let mut rig = Rig::new();
        let path = rig.dir.path().join("later");
        rig.directory.path = path.clone();
        assert_eq!(rig.read(), [""; 0]);
        assert_eq!(rig.problem(), "");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("west"), GOOD).expect("written");
        assert_eq!(rig.read(), ["west=1"]);
        fs::remove_dir_all(&path).expect("removed");
        assert_eq!(rig.read(), ["west=1"]);
        assert!(rig.problem().contains("stay"), "{}", rig.problem());
    }

    #[test]
    fn a_changed_certificate_is_a_change_of_the_cluster() {
        let mut rig = Rig::new();
        rig.write(
            "west",
            "endpoints: [\"https://192.0.2.1:2379\"]\ntrusted-ca-file: ca\ncert-file: crt\nkey-file: key\n",
        );
        ["ca", "crt", "key"]
            .iter()
            .for_each(|file| rig.write(file, "old"));
        rig.read();
        let before = rig.directory.clusters.clone();
        rig.read();
        assert_eq!(rig.directory.clusters, before);
        rig.write("crt", "new");
        rig.read();
        assert_ne!(rig.directory.clusters, before);
    }
}
