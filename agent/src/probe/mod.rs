//! Probes of the data path: which clusters and nodes answer echoes that take the same way as the pods' packets.
//!
//! ICMP echo needs nothing of the other side, so nodes that run Cilium can be probed as well as our own. The decision is made
//! by a pure machine ([`machine`]); [`task`] gives it sockets and a clock, on a thread of its own, so that nothing that the
//! agent is busy with delays a verdict. A cluster's verdict becomes one bit in the data path right there.
pub(crate) mod echo;
pub(crate) mod machine;
pub(crate) mod task;

#[cfg(test)]
mod tests;
