//! Keys, values and constants of every eBPF map, shared by the kernel programs and the agent.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
