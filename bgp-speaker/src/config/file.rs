//! The configuration file on disk, with the key files that it names: read at start, read again when one of them changes.
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Config, ConfigError};

/// A version of a file: what changes when somebody writes it or puts another file in its place.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The file, and which versions of it and of its key files were read last.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    keys: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl ConfigFile {
    /// Reads the file for the first time.
    pub(crate) fn open(path: &Path) -> Result<(Self, Config), ConfigError> {
        let config = read(path)?;
        let mut file = Self {
            path: path.to_owned(),
            keys: Vec::new(),
            stamps: Vec::new(),
        };
        file.remember(&config);
        Ok((file, config))
    }

    /// Reads the file again if something was changed since; the answer is given once for every change.
    pub(crate) fn changed(&mut self) -> Option<Result<Config, ConfigError>> {
        let now = self.look();
        if now == self.stamps {
            return None;
        }
        // What changes between this look and the reading is a change for the next call.
        self.stamps = now;
        let config = read(&self.path);
        if let Ok(config) = &config {
            let keys = key_files(config);
            if keys != self.keys {
                self.remember(config);
            }
        }
        Some(config)
    }

    fn remember(&mut self, config: &Config) {
        self.keys = key_files(config);
        self.stamps = self.look();
    }

    fn look(&self) -> Vec<Stamp> {
        let files = std::iter::once(&self.path).chain(&self.keys);
        files.map(|file| stamp(file)).collect()
    }
}

fn key_files(config: &Config) -> Vec<PathBuf> {
    let files = config.peers.iter().filter_map(|peer| peer.password_file.clone());
    files.collect()
}

fn read(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    Config::parse(&text, path)
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}
