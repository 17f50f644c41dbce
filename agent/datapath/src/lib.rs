//! Loads the eBPF programs, owns their maps and pins, and makes the maps equal what is wanted.
