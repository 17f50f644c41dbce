//! What tests share: namespaces, processes, peers from Debian, and waiting for a condition.
