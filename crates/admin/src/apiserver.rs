//! Views of the clustermesh-apiserver.
