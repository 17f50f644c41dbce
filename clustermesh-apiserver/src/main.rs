//! Exports this cluster's identities, services and nodes to its peers.
fn main() {}
