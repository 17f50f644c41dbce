//! Cilium ClusterMesh's keys and values: a lossless codec between etcd bytes and the mesh's types.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]
