//! BGP-4 messages to and from bytes, with RFC 7606 error handling.
//!
//! - [`frame::split`] cuts messages off a byte stream; [`message::Message::decode`] reads one.
//! - Reading borrows: an [`Update`] is a view of the bytes of its message. One pass finds every attribute and the worst that
//!   is wrong with the message: [`Disposition`], or a [`Notification`] that must end the session.
//! - [`Attributes`] is the owned, canonical form of the attributes of a route, made for interning and for passing on.
//! - [`write`] packs as many routes as fit into one UPDATE.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod as2;
pub mod as_path;
pub mod attribute;
pub mod capability;
pub mod community;
pub mod family;
pub mod frame;
pub mod message;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod route_refresh;
pub mod update;
pub mod validate;
pub mod write;

pub use as_path::AsPath;
pub use attribute::{Attributes, AttributesBuilder, AttributesView, Origin};
pub use capability::Capability;
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use family::{AfiSafi, Family};
pub use message::Message;
pub use nlri::{NextHop, Prefixes};
pub use notification::Notification;
pub use open::Open;
pub use route_refresh::RouteRefresh;
pub use update::{Context, Update};
pub use validate::{Disposition, Fault};
