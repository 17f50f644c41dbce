//! The configuration file on disk: read at start, read again when it changes.
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Config, ConfigError};

/// Name a version of the file: what changes when somebody writes it or puts another file in its place.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The file, and which version of it was read last.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    stamp: Stamp,
}

impl ConfigFile {
    /// Reads the file for the first time.
    pub(crate) fn open(path: &Path) -> Result<(Self, Config), ConfigError> {
        let stamp = stamp(path);
        let config = read(path)?;
        let path = path.to_owned();
        Ok((Self { path, stamp }, config))
    }

    /// Reads the file again if it was changed since; the answer is given once for every change.
    pub(crate) fn changed(&mut self) -> Option<Result<Config, ConfigError>> {
        let now = stamp(&self.path);
        if now == self.stamp {
            return None;
        }
        self.stamp = now;
        Some(read(&self.path))
    }
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
