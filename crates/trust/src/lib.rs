//! Certificates of the mesh: authorities, the leaf certificates that they issue with Cilium's common names, bundles of
//! authorities, checks that say what is wrong and how to mend it, and the TLS configurations made of all that.
//!
//! Cilium knows who somebody is by the common name of the client certificate alone (clustermesh.md §2.6 and §6.3):
//! `remote`, `remote-<peer>`, `local-<cluster>`, `admin-<cluster>`. [`ClientName`] holds exactly these.
//!
//! ```no_run
//! use isthmus_trust::{Authority, CaBundle, ClientName, LeafRequest, PairFiles, ServerNames, Validity};
//! # fn main() -> Result<(), isthmus_trust::CertError> {
//! let now = jiff::Timestamp::now();
//! let (ca, _) = Authority::ensure("Isthmus CA east", "ca.crt".as_ref(), "ca.key".as_ref(), now)?;
//! let server = LeafRequest::server(&ServerNames::default(), Validity::days(now, 365))?;
//! ca.ensure_leaf(&server, &PairFiles::new("server.crt", "server.key"), now)?;
//! let remote = LeafRequest::client(&ClientName::Remote, Validity::days(now, 365));
//! ca.ensure_leaf(&remote, &PairFiles::new("remote.crt", "remote.key"), now)?;
//! # let _ = CaBundle::load("ca.crt".as_ref())?;
//! # Ok(())
//! # }
//! ```

mod authority;
mod bundle;
mod error;
mod facts;
mod files;
mod leaf;
mod pair;
mod server;

pub use authority::{Authority, Outcome, RENEW_AT};
pub use bundle::CaBundle;
pub use error::{CertError, CertFault};
pub use facts::CertFacts;
pub use leaf::{ClientName, LeafRequest, MESH_DOMAIN, SERVER_COMMON_NAME, ServerNames, Validity};
pub use pair::{Pair, PairFiles};
pub use server::{ClientMaterial, ServerTls, TlsFiles, client_material};
