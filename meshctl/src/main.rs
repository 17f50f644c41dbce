//! The command line of Isthmus, with the one-machine lab.
fn main() {}
