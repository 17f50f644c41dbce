//! Two connections to one peer: which one stays (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §4.2).
//!
//! ```text
//!  the other connection  | what an OPEN on this connection leads to
//!  ----------------------+---------------------------------------------------------------------------------------
//!  none, connecting      | this one goes on
//!  OpenSent              | this one goes on; the other decides when its OPEN arrives
//!  OpenConfirm           | the one that the speaker with the higher BGP identifier asked for stays
//!  Established           | the other stays, except if the peer restarted: then this one stays
//! ```
use std::time::Duration;

use super::Local;
use super::connection::{Connection, Phase, Session};

/// How long after a session was established a new connection can still be a late part of the same collision. One that is
/// accepted later, from a peer that says that it restarted, is a restart.
const COLLISION_WINDOW: Duration = Duration::from_secs(1);

/// Who has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collision {
    /// Nobody.
    None,
    /// The connection that the OPEN arrived on.
    DropThis,
    /// The other connection.
    DropOther,
    /// The other connection, in silence, for the peer restarted and does not know it any more.
    PeerRestarted,
}

/// Decides when an OPEN (`session`) arrives on `this` while `other` exists.
pub(crate) fn decide(this: &Connection, session: &Session, other: &Connection, local: Local) -> Collision {
    match other.phase {
        Phase::Connecting | Phase::OpenSent => Collision::None,
        Phase::OpenConfirm => {
            if prefers_ours(local, session) == this.outgoing {
                Collision::DropOther
            } else {
                Collision::DropThis
            }
        }
        Phase::Established => {
            let restarted = session.restart.as_ref().is_some_and(|restart| restart.restarted);
            let established = other
                .session
                .as_ref()
                .map_or(Duration::ZERO, |session| session.since);
            if restarted && this.since > established + COLLISION_WINDOW {
                Collision::PeerRestarted
            } else {
                Collision::DropThis
            }
        }
    }
}

/// True if the connection that we asked for wins: ours is the higher BGP identifier, or, between equal ones, the higher AS.
fn prefers_ours(local: Local, session: &Session) -> bool {
    (local.router_id, local.asn) > (session.router_id, session.asn)
}
