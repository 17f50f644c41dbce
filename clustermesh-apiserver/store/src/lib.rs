//! An etcd v3 API server in process: MVCC, watches, leases, mutual TLS and roles by common name.
