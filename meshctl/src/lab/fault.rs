//! Breaking and healing parts of the lab.
use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};

use isthmus_netlink::{NetlinkError, Netns};
use nix::sys::signal::Signal;

use super::manifest;
use super::plan::{Cluster, ECHO, Plan, Pod, UPLINK, Uplink};
use super::process::{self, Spec};
use super::{Lab, daemon, net, status, up};
use crate::failure::{Doing, Failure, Outcome};
use crate::progress::Progress;

/// How long a restarted daemon gets to be ready.
const RESTART: Duration = Duration::from_secs(15);

/// What can be broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A node vanishes: its link swallows all packets.
    Node(String),
    /// All nodes of a cluster and its control plane vanish.
    Cluster(String),
    /// A link of the router goes down, and both ends see it.
    Link(String),
    /// A node's agent dies.
    Agent(String),
    /// A node's speaker dies.
    Speaker(String),
    /// A cluster's clustermesh-apiserver dies.
    Apiserver(String),
    /// All pods of an app in a cluster die, and the kubelets report it.
    Pods {
        /// The cluster.
        cluster: String,
        /// The app.
        app: String,
    },
}

/// The forms that a user may type.
const FORMS: &str = "node:west-1, cluster:west, link:tor-east-1, agent:east-1, speaker:east-1, apiserver:west, pods:east/echo";

impl Target {
    /// Everything that can be broken: links first, because daemons are ready only when packets pass.
    pub(crate) fn all(plan: &Plan) -> Vec<Self> {
        let clusters = || plan.clusters.iter();
        let places = clusters()
            .flat_map(Cluster::uplinks)
            .map(|(place, _)| place.to_owned());
        let links = places.map(Self::Link);
        let cuts = clusters().map(|c| Self::Cluster(c.name.clone()));
        let apiservers = clusters().map(|c| Self::Apiserver(c.name.clone()));
        let agents = plan.nodes().map(|(_, node)| Self::Agent(node.name.clone()));
        let speakers = plan.nodes().map(|(_, node)| Self::Speaker(node.name.clone()));
        let pods = clusters().map(|c| Self::Pods {
            cluster: c.name.clone(),
            app: ECHO.to_owned(),
        });
        links
            .chain(cuts)
            .chain(apiservers)
            .chain(agents)
            .chain(speakers)
            .chain(pods)
            .collect()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is nothing that can be broken; use one of: {FORMS}");
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        let name = name.to_owned();
        match kind {
            _ if name.is_empty() => Err(unknown()),
            "node" => Ok(Self::Node(name)),
            "cluster" => Ok(Self::Cluster(name)),
            "link" => match name.strip_prefix("tor-") {
                Some(place) => Ok(Self::Link(place.into())),
                None => Err(unknown()),
            },
            "agent" => Ok(Self::Agent(name)),
            "speaker" => Ok(Self::Speaker(name)),
            "apiserver" => Ok(Self::Apiserver(name)),
            "pods" => match name.split_once('/') {
                Some((cluster, app)) => Ok(Self::Pods {
                    cluster: cluster.into(),
                    app: app.into(),
                }),
                None => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Cluster(name) => write!(f, "cluster:{name}"),
            Self::Link(place) => write!(f, "link:tor-{place}"),
            Self::Agent(node) => write!(f, "agent:{node}"),
            Self::Speaker(node) => write!(f, "speaker:{node}"),
            Self::Apiserver(cluster) => write!(f, "apiserver:{cluster}"),
            Self::Pods { cluster, app } => write!(f, "pods:{cluster}/{app}"),
        }
    }
}

/// Breaks a part; breaking what is broken changes nothing.
pub(crate) fn break_part(lab: &Lab, target: &Target) -> Outcome {
    match target {
        Target::Node(name) => {
            let (_, node) = lab.plan.node(name)?;
            cut(lab, [(name.as_str(), &node.uplink)], true)
        }
        Target::Cluster(name) => cut(lab, lab.plan.cluster(name)?.uplinks(), true),
        Target::Link(place) => set_link(lab, place, false),
        Target::Agent(_) | Target::Speaker(_) | Target::Apiserver(_) => kill(lab, &[spec(lab, target)?.role]),
        Target::Pods { cluster, app } => {
            let cluster = with_app(lab, cluster, app)?;
            let roles: Vec<String> = cluster.pods(app).map(|p| format!("pod:{}", p.name)).collect();
            kill(lab, &roles)?;
            report_pods(lab, cluster)
        }
    }
}

/// Heals a part; healing what is whole changes nothing.
pub(crate) fn heal_part(lab: &Lab, target: &Target, progress: &Progress) -> Outcome {
    let deadline = Instant::now() + RESTART;
    match target {
        Target::Node(name) => {
            let (_, node) = lab.plan.node(name)?;
            cut(lab, [(name.as_str(), &node.uplink)], false)
        }
        Target::Cluster(name) => cut(lab, lab.plan.cluster(name)?.uplinks(), false),
        Target::Link(place) => set_link(lab, place, true),
        Target::Agent(_) | Target::Speaker(_) | Target::Apiserver(_) => {
            let spec = spec(lab, target)?;
            restart(lab, &spec)?;
            let socket = admin_socket(&spec);
            up::wait_ready(&lab.paths, &lab.ledger, &spec.role, &socket, deadline, progress).map(drop)
        }
        Target::Pods { cluster, app } => {
            let cluster = with_app(lab, cluster, app)?;
            for pod in cluster.pods(app) {
                start_pod(lab, cluster, pod, deadline, progress)?;
            }
            report_pods(lab, cluster)
        }
    }
}

fn start_pod(lab: &Lab, cluster: &Cluster, pod: &Pod, deadline: Instant, progress: &Progress) -> Outcome {
    if status::echo_runs(lab, &pod.name)? {
        return Ok(());
    }
    let spec = daemon::echo(&lab.plan, &lab.paths, cluster, pod)?;
    // What it said before it died must not be taken for a sign of life.
    std::fs::write(&spec.log, "").doing(format!("empty {}", spec.log.display()))?;
    process::start(&spec, &lab.ledger)?;
    up::wait_for_echo(&lab.paths, &lab.ledger, &pod.name, deadline, progress)
}

/// The kubelets report which pods are ready.
fn report_pods(lab: &Lab, cluster: &Cluster) -> Outcome {
    let mut ready = Vec::new();
    for pod in cluster.pods(ECHO) {
        if status::echo_runs(lab, &pod.name)? {
            ready.push(pod.name.clone());
        }
    }
    let manifests = lab.cluster_dir(&cluster.name).join("manifests");
    manifest::write_endpoints(&manifests, cluster, |pod| ready.contains(&pod.name))
}

/// Starts a daemon unless it runs.
pub(crate) fn restart(lab: &Lab, spec: &Spec) -> Outcome {
    if lab.process(&spec.role)?.is_some_and(|p| p.alive()) {
        return Ok(());
    }
    process::start(spec, &lab.ledger).map(drop)
}

/// `kill -9` to all of them; returns when they are gone.
fn kill(lab: &Lab, roles: &[String]) -> Outcome {
    let mut processes = lab.processes()?;
    processes.retain(|p| roles.contains(&p.role));
    if processes.len() < roles.len() {
        return Err(Failure::usage(format!(
            "lab {} has not started {}",
            lab.plan.name,
            roles.join(", ")
        ))
        .next("meshctl lab status lists its parts"));
    }
    for process in &processes {
        process.signal(Signal::SIGKILL)?;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while processes.iter().any(process::Running::alive) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Whether the lab has such a part: a lab may have been brought up without daemons.
pub(crate) fn is_part(lab: &Lab, target: &Target) -> Outcome<bool> {
    match target {
        Target::Agent(_) | Target::Speaker(_) | Target::Apiserver(_) => {
            Ok(lab.process(&spec(lab, target)?.role)?.is_some())
        }
        _ => Ok(true),
    }
}

/// How a daemon is started.
pub(crate) fn spec(lab: &Lab, target: &Target) -> Outcome<Spec> {
    match target {
        Target::Agent(name) => {
            let (cluster, node) = lab.plan.node(name)?;
            daemon::agent(&lab.plan, &lab.paths, cluster, node)
        }
        Target::Speaker(name) => {
            let (cluster, node) = lab.plan.node(name)?;
            daemon::speaker(&lab.plan, &lab.paths, cluster, node)
        }
        Target::Apiserver(name) => daemon::apiserver(&lab.plan, &lab.paths, lab.plan.cluster(name)?),
        other => Err(Failure::usage(format!("{other} is no daemon"))),
    }
}

fn admin_socket(spec: &Spec) -> std::path::PathBuf {
    let mut args = spec.args.iter();
    args.find(|a| *a == "--admin-socket");
    args.next().map(Into::into).unwrap_or_default()
}

fn with_app<'l>(lab: &'l Lab, cluster: &str, app: &str) -> Outcome<&'l Cluster> {
    let cluster = lab.plan.cluster(cluster)?;
    match app {
        ECHO => Ok(cluster),
        _ => {
            Err(Failure::usage(format!("no service {app} in {}", cluster.name)).next("use pods:CLUSTER/echo"))
        }
    }
}

/// Both ends swallow what comes in, so neither direction passes and nobody is told.
fn cut<'u>(lab: &Lab, uplinks: impl IntoIterator<Item = (&'u str, &'u Uplink)>, cut: bool) -> Outcome {
    for (place, uplink) in uplinks {
        net::cut(&lab.plan.netns("tor"), &uplink.tor_link, cut)?;
        net::cut(&lab.plan.netns(place), UPLINK, cut)?;
    }
    Ok(())
}

fn set_link(lab: &Lab, place: &str, set_up: bool) -> Outcome {
    let uplinks = lab.plan.clusters.iter().flat_map(Cluster::uplinks);
    let known: Vec<(&str, &Uplink)> = uplinks.chain([("client", &lab.plan.client)]).collect();
    let Some((_, uplink)) = known.iter().find(|(p, _)| *p == place) else {
        let names: Vec<_> = known.iter().map(|(p, _)| format!("link:tor-{p}")).collect();
        return Err(Failure::usage(format!("there is no link:tor-{place}"))
            .next(format!("use one of: {}", names.join(", "))));
    };
    let change = || -> Result<(), NetlinkError> {
        let tor = Netns::named(&lab.plan.netns("tor"))?;
        if set_up {
            tor.netlink()?.set_up(&uplink.tor_link)?;
            tor.run(|| wait_for_packets(uplink))
        } else {
            tor.netlink()?.set_down(&uplink.tor_link)
        }
    };
    change().doing(format!("set the router's link to {place}"))
}

/// A link that is up may carry nothing for up to a second: a worker of the kernel opens its queues. Waits until the other end
/// answers, even if only by refusing; gives up after two seconds, since that end may be broken in another way.
fn wait_for_packets(uplink: &Uplink) {
    let discard = SocketAddr::new(uplink.ip(), 9);
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        match TcpStream::connect_timeout(&discard, Duration::from_millis(50)) {
            Ok(_) => return,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        for form in FORMS.split(", ") {
            let target: Target = form.parse().expect(form);
            assert_eq!(target.to_string(), form);
        }
        for odd in ["", "node", "node:", "link:east-1", "pods:east", "router:tor"] {
            let error = odd.parse::<Target>().expect_err(odd);
            assert!(error.contains("pods:east/echo"), "{error}");
        }
    }
}
