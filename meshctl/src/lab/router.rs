//! The top-of-rack router: FRR when it is installed, else BIRD, else our own speaker.
mod bird;
mod frr;
mod own;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::paths::{Paths, frr_program, own_program, system_program};
use super::plan::Plan;
use super::process::Spec;
use crate::failure::{Doing, Failure, Outcome};

pub(crate) use own::{FibArgs, keep_fib};

/// Which program plays the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Router {
    /// FRRouting: zebra and bgpd.
    Frr,
    /// BIRD 2.
    Bird,
    /// Our own speaker, and a helper of the lab that puts what it learns into the kernel.
    #[value(name = "self")]
    Own,
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::Own => "self",
        })
    }
}

impl Router {
    /// The one that is asked for, or the best that is installed; says what it fell back from.
    pub(crate) fn choose(wanted: Option<Self>) -> Outcome<(Self, Option<String>)> {
        if let Some(router) = wanted {
            return match router.missing() {
                None => Ok((router, None)),
                Some(why) => Err(Failure::unreachable(format!("--tor {router} cannot be used"))
                    .because(why)
                    .next("install it, or leave --tor out to take what there is")),
            };
        }
        let mut fallen = Vec::new();
        for router in [Self::Frr, Self::Bird, Self::Own] {
            match router.missing() {
                None => return Ok((router, (!fallen.is_empty()).then(|| fallen.join("; ")))),
                Some(why) => fallen.push(why),
            }
        }
        Err(Failure::unreachable("there is no router for the lab").because(fallen.join("; ")))
    }

    /// Why it cannot be used.
    fn missing(self) -> Option<String> {
        match self {
            Self::Frr => {
                let there = frr_users() && frr_program("zebra").is_some() && frr_program("bgpd").is_some();
                (!there).then(|| "FRR is not installed (apt-get install frr)".into())
            }
            Self::Bird => {
                let there = system_program("bird").is_some();
                (!there).then(|| "BIRD is not installed (apt-get install bird2)".into())
            }
            Self::Own => own_program("bgp-speaker")
                .is_none()
                .then(|| "bgp-speaker is neither beside meshctl nor on PATH".into()),
        }
    }

    /// Writes its configuration and gives its processes, in the order in which they must start, each with the file
    /// that shows that it is there.
    pub(crate) fn processes(self, plan: &Plan, paths: &Paths) -> Outcome<Vec<(Spec, PathBuf)>> {
        match self {
            Self::Frr => frr::processes(plan, paths),
            Self::Bird => bird::processes(plan, paths),
            Self::Own => own::processes(plan, paths),
        }
    }

    /// Of which router a ledger speaks.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Frr, Self::Bird, Self::Own]
            .into_iter()
            .find(|r| r.to_string() == name)
    }

    /// What a user types on the router to look at it with its own tool; see [`write_tool`].
    pub(crate) fn look(self, paths: &Paths) -> String {
        match self {
            Self::Frr => "vtysh -c 'show bgp summary'".into(),
            Self::Bird => "birdc show protocols".into(),
            Self::Own => format!(
                "curl --unix-socket {}/bgp.sock http://lab/v1/peers",
                paths.tor().display()
            ),
        }
    }
}

/// Where programs are that talk to this lab's router instead of the machine's.
pub(crate) fn tools(paths: &Paths) -> PathBuf {
    paths.tor().join("bin")
}

/// Writes a program of the router's own name that talks to the router of this lab.
fn write_tool(paths: &Paths, name: &str, flags: &str) -> Outcome {
    let Some(program) = system_program(name) else {
        return Ok(()); // A router without its tool still routes.
    };
    let dir = tools(paths);
    let doing = || format!("write {}/{name}", dir.display());
    fs::create_dir_all(&dir).doing(doing())?;
    let script = format!("#!/bin/sh\nexec {} {flags} \"$@\"\n", program.display());
    fs::write(dir.join(name), script).doing(doing())?;
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).doing(doing())
}

fn frr_users() -> bool {
    nix::unistd::User::from_name("frr").is_ok_and(|u| u.is_some())
}

/// Every BGP neighbour of the router: name, IPv4 address, AS number.
fn neighbours(plan: &Plan) -> impl Iterator<Item = (&str, IpAddr, u32)> {
    plan.nodes()
        .map(|(cluster, node)| (node.name.as_str(), node.uplink.ip(), cluster.asn))
}

/// The router's identifier: its address towards the client.
fn router_id(plan: &Plan) -> IpAddr {
    plan.client.tor[0].addr()
}

fn spec(plan: &Plan, paths: &Paths, role: &str, program: &Path, args: Vec<String>) -> Spec {
    Spec {
        role: format!("{role}:tor"),
        netns: plan.netns("tor"),
        cgroup: paths.cgroup.join("tor"),
        program: program.into(),
        args,
        log: paths.log(&format!("{role}:tor")),
    }
}
