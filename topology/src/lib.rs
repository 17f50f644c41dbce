//! The mesh as data: names, nodes, services, identities, and the pure functions that merge, plan and draw them.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
