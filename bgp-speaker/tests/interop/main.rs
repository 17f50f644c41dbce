//! The daemon against real routers and against a scripted peer, each story in namespaces of its own.
mod routers;
mod stories;
mod support;
