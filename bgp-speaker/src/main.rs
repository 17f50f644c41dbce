//! The BGP daemon: advertises pod CIDRs and LoadBalancer addresses with live backends.
mod advertise;
mod config;
fn main() {}
