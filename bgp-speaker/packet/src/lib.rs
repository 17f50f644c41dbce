//! BGP-4 messages to and from bytes, with RFC 7606 error handling.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
