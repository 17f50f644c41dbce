//! The BGP engine without I/O or clock: sessions, collision handling, RIBs, policy, graceful restart.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
