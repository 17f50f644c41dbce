//! How the lab's own parts stand: its processes and links. How the mesh stands is what `meshctl status` says.
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use isthmus_netlink::Netns;
use serde::Serialize;

use super::plan::{DEFAULT_NAME, ECHO, Plan, VIP};
use super::router::{Router, tools};
use super::{Lab, daemon, net};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{List, TableRow};

/// One part of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartRow {
    /// What it is, in the words of `lab break`.
    part: String,
    /// `running`, `dead`, `joined` or `cut`.
    state: &'static str,
    /// The place (network namespace without the lab's name).
    place: String,
    /// Process id, if it is a process.
    pid: Option<i32>,
    /// What to know of it.
    detail: String,
}

impl TableRow for PartRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) =
        (&["PART", "STATE", "PLACE", "PID"], &["DETAIL"]);

    fn cells(&self) -> Vec<String> {
        let pid = self.pid.map_or_else(String::new, |pid| pid.to_string());
        vec![
            self.part.clone(),
            self.state.into(),
            self.place.clone(),
            pid,
            self.detail.clone(),
        ]
    }
}

/// All parts of a lab. Degraded if something is dead or cut.
pub(crate) fn parts(lab: &Lab) -> Outcome<List<PartRow>> {
    let mut rows = Vec::new();
    for process in lab.processes()? {
        let alive = process.alive();
        rows.push(PartRow {
            state: if alive { "running" } else { "dead" },
            place: place_of(&process.role),
            pid: alive.then_some(process.pid),
            detail: lab.paths.log(&process.role).display().to_string(),
            part: process.role,
        });
    }
    rows.sort_by(|a, b| a.part.cmp(&b.part));
    let cut: BTreeSet<String> = net::cuts(&lab.plan.netns("tor"))?.into_iter().collect();
    for cluster in &lab.plan.clusters {
        for (place, uplink) in cluster.uplinks() {
            let up = link_is_up(&lab.plan, &uplink.tor_link);
            let [v4, v6] = uplink.own;
            rows.push(PartRow {
                part: format!("link:tor-{place}"),
                state: if cut.contains(&uplink.tor_link) || !up {
                    "cut"
                } else {
                    "joined"
                },
                place: place.into(),
                pid: None,
                detail: format!("{v4} {v6}"),
            });
        }
    }
    let good = rows.iter().all(|r| matches!(r.state, "running" | "joined"));
    let exit = if good { Exit::Ok } else { Exit::Degraded };
    Ok(List::new("LabPartList", rows, exit))
}

fn place_of(role: &str) -> String {
    match role.split_once(':') {
        Some(("apiserver", cluster)) => format!("{cluster}-cp"),
        Some((_, place)) => place.into(),
        None => role.into(),
    }
}

fn link_is_up(plan: &Plan, tor_link: &str) -> bool {
    Netns::named(&plan.netns("tor"))
        .and_then(|ns| ns.netlink())
        .and_then(|netlink| netlink.link(tor_link))
        .is_ok_and(|link| link.up && link.carrier)
}

/// The router's ways to the address of the service, read from its kernel: no router can claim what is not there.
pub(crate) fn vip_next_hops(plan: &Plan) -> Result<BTreeSet<IpAddr>, String> {
    next_hops(plan, IpNet::from(IpAddr::from(VIP)))
}

/// The router's next hops to a prefix.
pub(crate) fn next_hops(plan: &Plan, prefix: IpNet) -> Result<BTreeSet<IpAddr>, String> {
    let routes = Netns::named(&plan.netns("tor"))
        .and_then(|ns| ns.netlink())
        .and_then(|netlink| netlink.routes())
        .map_err(|e| e.to_string())?;
    let to_prefix = routes.into_iter().filter(|r| r.destination == prefix);
    Ok(to_prefix
        .flat_map(|r| r.next_hops)
        .filter_map(|hop| hop.gateway)
        .collect())
}

/// What a user may want to type next.
pub(crate) fn hints(lab: &Lab) -> String {
    let pod = lab.plan.clusters.iter().flat_map(|c| c.pods("box")).next();
    let pod = pod.map_or("client", |p| p.name.as_str());
    let look = Router::from_name(&lab.tor).map_or_else(|| "sh".into(), |tor| tor.look(&lab.paths));
    let meshctl = std::env::args().next().unwrap_or_else(|| "meshctl".into());
    // The default name need not be typed.
    let (name, which) = match lab.plan.name.as_str() {
        DEFAULT_NAME => (String::new(), String::new()),
        name => (format!(" --name {name}"), format!(" --lab {name}")),
    };
    format!(
        "next: {meshctl} status{which}   (or services, nodes, bgp peers, bgp routes out; -o wide|json|yaml)\n\
         \x20     {meshctl} lab exec{name} client -- curl -s http://{VIP}/\n\
         \x20     {meshctl} lab exec{name} tor -- {look}\n\
         \x20     {meshctl} lab shell{name} {pod}\n\
         \x20     {meshctl} lab break{name} pods:east/{ECHO}   (then lab heal)\n\
         \x20     {meshctl} lab down{name}\n",
    )
}

/// Which pods' echo servers run.
pub(crate) fn echo_runs(lab: &Lab, pod: &str) -> Outcome<bool> {
    let process = lab.process(&format!("pod:{pod}"))?;
    Ok(process.is_some_and(|p| p.alive()))
}

/// A program in a place of the lab.
pub(crate) fn command_in(
    lab: &Lab,
    place: &str,
    terminal: bool,
    command: &[String],
) -> Outcome<std::process::Command> {
    let known = lab.plan.places();
    if !known.iter().any(|p| p == place) {
        return Err(crate::failure::Failure::usage(format!(
            "there is no place {place} in lab {}",
            lab.plan.name
        ))
        .next(format!("use one of: {}", known.join(", "))));
    }
    let cgroup = daemon::place_cgroup(&lab.plan, &lab.paths, place);
    std::fs::create_dir_all(&cgroup).map_err(|e| {
        crate::failure::Failure::unreachable(format!("cannot make the control group {}", cgroup.display()))
            .because(e)
    })?;
    let (program, args) = command.split_first().ok_or_else(|| {
        crate::failure::Failure::usage("no program was named")
            .next("meshctl lab exec PLACE -- PROGRAM ARGUMENTS")
    })?;
    let netns = lab.plan.netns(place);
    let mut wrapped = super::process::wrapped(&netns, &cgroup, terminal, Path::new(program), args)?;
    wrapped.env("PATH", path_in(lab, place));
    Ok(wrapped)
}

/// The router's own tools on the router, meshctl everywhere, then what the caller has.
fn path_in(lab: &Lab, place: &str) -> OsString {
    let own = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let tools = (place == "tor").then(|| tools(&lab.paths));
    let callers = std::env::var_os("PATH").unwrap_or_default();
    let all = tools
        .into_iter()
        .chain(std::env::split_paths(&callers))
        .chain(own);
    std::env::join_paths(all).unwrap_or(callers)
}
