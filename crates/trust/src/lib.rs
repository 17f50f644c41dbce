//! Certificates: authorities, leaf certificates with Cilium's common names, chains, and the TLS configurations made of them.
