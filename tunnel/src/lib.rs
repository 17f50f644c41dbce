//! How each pair of nodes is joined: a pure plan of devices, routes and rules.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
