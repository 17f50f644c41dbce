//! The files that make one cluster know another: Cilium's configuration directory (clustermesh.md §3.1).
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use isthmus_trust::{Authority, ClientName, LeafRequest, Outcome as Issued, Pair, PairFiles, Validity};
use jiff::Timestamp;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Doing, Outcome};

/// Validity of the client certificates.
const DAYS: u16 = 365;

/// What writing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// A file is new or different.
    pub(super) changed: bool,
    /// Days until the client certificate expires.
    pub(super) days: i64,
}

struct Names {
    config: PathBuf,
    ca: PathBuf,
    pair: PairFiles,
}

fn names(own: &Context, peer: &Context) -> Names {
    let dir = own.clustermesh();
    let file = |suffix: &str| dir.join(format!("{}.etcd-client{suffix}", peer.name()));
    Names {
        config: dir.join(peer.name()),
        ca: file("-ca.crt"),
        pair: PairFiles::new(file(".crt"), file(".key")),
    }
}

/// The files that `own` has about `peer`, the configuration last.
pub(super) fn files(own: &Context, peer: &Context) -> Vec<PathBuf> {
    let names = names(own, peer);
    vec![names.ca, names.pair.certificate, names.pair.key, names.config]
}

/// Makes `own` know `peer`: the peer's authority, a client certificate `remote-<own>` issued by that authority, and at
/// last the configuration that makes the agents connect. What is right already is not written again.
pub(super) fn write(own: &Context, peer: &Context, now: Timestamp) -> Outcome<Written> {
    let doing = || format!("make {} known to {}", peer.name(), own.name());
    let names = names(own, peer);
    let dir = own.clustermesh();
    fs::create_dir_all(&dir).doing(format!("make {}", dir.display()))?;
    let authority = Authority::load(&peer.pki("ca.crt"), &peer.pki("ca.key"), now).doing(doing())?;
    let mut changed = put(&names.ca, authority.certificate_pem().as_bytes())?;
    let client = ClientName::RemotePeer(own.name().to_owned());
    let request = LeafRequest::client(&client, Validity::days(now, DAYS));
    let issued = authority.ensure_leaf(&request, &names.pair, now).doing(doing())?;
    changed |= !matches!(issued, Issued::Kept);
    let pair = Pair::load(&names.pair).doing(doing())?;
    let days = (pair.facts().not_after.as_second() - now.as_second()) / 86_400;
    changed |= put(&names.config, config(&names, peer)?.as_bytes())?;
    Ok(Written { changed, days })
}

fn config(names: &Names, peer: &Context) -> Outcome<String> {
    let text = |path: &Path| path.display().to_string();
    let config = json!({
        "endpoints": peer.cluster.endpoints,
        "trusted-ca-file": text(&names.ca),
        "cert-file": text(&names.pair.certificate),
        "key-file": text(&names.pair.key),
    });
    serde_saphyr::to_string(&config).doing("write the peer's configuration")
}

/// Takes the peer out of `own`'s configuration; false if it was not there.
pub(super) fn remove(own: &Context, peer: &Context) -> Outcome<bool> {
    let mut removed = false;
    // The configuration first: an agent must not read one whose certificates are gone.
    for file in files(own, peer).into_iter().rev() {
        match fs::remove_file(&file) {
            Ok(()) => removed = true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).doing(format!("remove {}", file.display())),
        }
    }
    Ok(removed)
}

/// Puts a file in place as a whole, unless it is there as it should be.
fn put(path: &Path, content: &[u8]) -> Outcome<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let doing = || format!("write {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = path.with_file_name(format!(".{name}.next"));
    let mut file = fs::File::create(&next).doing(doing())?;
    file.write_all(content).doing(doing())?;
    file.sync_all().doing(doing())?;
    fs::rename(&next, path).doing(doing())?;
    Ok(true)
}
