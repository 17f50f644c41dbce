//! BGP-4 messages to and from bytes, with RFC 7606 error handling.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

pub mod as_path;
pub mod attribute;
pub mod community;
pub mod family;
pub mod frame;
pub mod notification;

pub use as_path::AsPath;
pub use attribute::{Attributes, AttributesBuilder, AttributesView, Origin};
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use family::{AfiSafi, Family};
pub use notification::Notification;
