//! The lab: two clusters, a router and a client on one machine, in network namespaces, with the real daemons.
pub(crate) mod admin;
pub(crate) mod commands;
pub(crate) mod daemon;
mod down;
pub(crate) mod fault;
mod ledger;
mod machine;
pub(crate) mod manifest;
pub(crate) mod net;
pub(crate) mod paths;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod router;
pub(crate) mod status;
mod up;

use std::path::PathBuf;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

use ledger::{Item, Ledger};
use paths::Paths;
use plan::Plan;
use process::Running;

pub(crate) use up::UpOptions;

/// A lab that is up, as its ledger knows it.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Who there is.
    pub(crate) plan: Plan,
    /// Where its things are.
    pub(crate) paths: Paths,
    /// To which what is started later is added.
    pub(crate) ledger: Ledger,
    /// The router that runs.
    pub(crate) tor: String,
    /// How long `up` took, in milliseconds.
    pub(crate) took_ms: u64,
}

impl Lab {
    /// Opens a lab that is up.
    pub(crate) fn open(name: &str) -> Outcome<Self> {
        let plan = Plan::new(name)?;
        let paths = Paths::of(name)?;
        if !paths.ledger().exists() {
            return Err(not_up(name));
        }
        let items = Ledger::read(&paths.ledger())?;
        let ready = items.into_iter().find_map(|i| match i {
            Item::Ready { tor, took_ms } => Some((tor, took_ms)),
            _ => None,
        });
        let Some((tor, took_ms)) = ready else {
            return Err(
                Failure::new(crate::exit::Exit::Down, format!("lab {name} is not complete"))
                    .because("`lab up` is still at work, or it was interrupted")
                    .next(format!("meshctl lab down --name {name}, then lab up again")),
            );
        };
        Ok(Self {
            ledger: Ledger::open(&paths.ledger())?,
            plan,
            paths,
            tor,
            took_ms,
        })
    }

    /// The lab that is meant when none is named: the only one that there is.
    pub(crate) fn only() -> Outcome<Self> {
        match paths::labs().as_slice() {
            [name] => Self::open(name),
            [] => Err(not_up(plan::DEFAULT_NAME)),
            many => {
                Err(Failure::usage("several labs are up")
                    .next(format!("say which: --lab {}", many.join("|"))))
            }
        }
    }

    /// The newest process of each role, alive or not.
    pub(crate) fn processes(&self) -> Outcome<Vec<Running>> {
        Ok(Running::newest(&Ledger::read(&self.paths.ledger())?))
    }

    /// The newest process of one role.
    pub(crate) fn process(&self, role: &str) -> Outcome<Option<Running>> {
        Ok(self.processes()?.into_iter().find(|p| p.role == role))
    }

    /// The directories of its clusters.
    pub(crate) fn contexts(&self) -> Outcome<Vec<Context>> {
        self.plan
            .clusters
            .iter()
            .map(|c| Context::load(&self.cluster_dir(&c.name)))
            .collect()
    }

    /// The directory of one cluster.
    pub(crate) fn cluster_dir(&self, cluster: &str) -> PathBuf {
        self.paths.cluster(cluster)
    }
}

fn not_up(name: &str) -> Failure {
    Failure::new(crate::exit::Exit::Down, format!("no lab {name} is up"))
        .because(format!("there is no {}/{name}/ledger", paths::LABS))
        .next(format!("meshctl lab up --name {name}"))
}
