//! Interop, replay, namespace and end-to-end tests of the daemons: see tests/*.rs.
