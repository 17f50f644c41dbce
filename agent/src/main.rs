//! The node daemon: joins remote clusters and programs this node's data path.
fn main() {}
