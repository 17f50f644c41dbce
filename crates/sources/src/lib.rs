//! Where intent comes from: a directory of Kubernetes manifests, watched, as tables.
