//! Which daemons a listing asks.
use std::path::PathBuf;
use std::thread;

use serde::de::DeserializeOwned;

use crate::cli::ListArgs;
use crate::context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::lab::admin;

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Its cluster; empty if only its socket is known.
    pub(super) cluster: String,
    /// Its node; empty for an apiserver, or if only its socket is known.
    pub(super) node: String,
    socket: PathBuf,
}

/// What a daemon said.
#[derive(Debug, Clone)]
pub(super) struct Answer<T> {
    /// Who.
    pub(super) source: Source,
    /// The view, or why there is none.
    pub(super) view: Result<T, String>,
}

/// Which kind of daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Agent,
    Speaker,
    Apiserver,
}

/// The daemons of a kind that a command is about, cluster by cluster.
pub(super) fn sources(args: &ListArgs, kind: Kind) -> Outcome<Vec<Source>> {
    if let Some(socket) = &args.socket {
        let (cluster, node) = (String::new(), String::new());
        return Ok(vec![Source {
            cluster,
            node,
            socket: socket.clone(),
        }]);
    }
    let mut sources = Vec::new();
    for context in context::all(&args.scope)? {
        let source = |node: &str, socket: PathBuf| Source {
            cluster: context.name().into(),
            node: node.into(),
            socket,
        };
        if kind == Kind::Apiserver {
            sources.push(source("", context.apiserver_socket()));
            continue;
        }
        for node in &context.cluster.nodes {
            let socket = match kind {
                Kind::Speaker => context.bgp_socket(node),
                _ => context.agent_socket(node),
            };
            sources.push(source(node, socket));
        }
    }
    Ok(sources)
}

/// Asks all of them at the same time. If none answers that is the failure.
pub(super) fn ask<T: DeserializeOwned + Send>(sources: &[Source], path: &str) -> Outcome<Vec<Answer<T>>> {
    let answers: Vec<Answer<T>> = thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter()
            .map(|s| scope.spawn(|| admin::read(&s.socket, path)))
            .collect();
        let views = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("the question failed".into())));
        sources
            .iter()
            .cloned()
            .zip(views)
            .map(|(source, view)| Answer { source, view })
            .collect()
    });
    match answers.iter().find_map(|a| a.view.as_ref().err()) {
        Some(why) if answers.iter().all(|a| a.view.is_err()) => {
            Err(Failure::new(Exit::Unreachable, "no daemon answers")
                .because(why)
                .next("meshctl lab status"))
        }
        _ => Ok(answers),
    }
}

#[cfg(test)]
impl Source {
    pub(super) fn for_test(cluster: &str, node: &str) -> Self {
        Self {
            cluster: cluster.into(),
            node: node.into(),
            socket: PathBuf::new(),
        }
    }
}
