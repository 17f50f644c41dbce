//! The BGP daemon: advertises pod CIDRs and LoadBalancer addresses with live backends.
fn main() {}
