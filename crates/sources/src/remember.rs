//! The file that remembers which identity was given to which labels, so that a restart gives the same ones.
use std::collections::BTreeMap;
use std::path::Path;

use isthmus_topology::Identity;

const FILE: &str = "identities";

/// What was given before; nothing if there is no state directory or no file yet.
pub(crate) fn read(state_dir: Option<&Path>) -> Result<BTreeMap<String, Identity>, String> {
    let Some(path) = state_dir.map(|dir| dir.join(FILE)) else {
        return Ok(BTreeMap::new());
    };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            format!("{FILE} is damaged and is not used ({error}): identities are given anew; they may differ")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{FILE} cannot be read: {error}")),
    }
}

/// Replaces the file as a whole.
pub(crate) fn write(state_dir: &Path, given: &BTreeMap<String, Identity>) -> Result<(), String> {
    let attempt = || {
        std::fs::create_dir_all(state_dir)?;
        let new = state_dir.join(format!(".{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec(given)?)?;
        std::fs::rename(&new, state_dir.join(FILE))
    };
    attempt()
        .map_err(|error| format!("{FILE} cannot be written, after a restart identities may differ: {error}"))
}
