//! What must be right before two clusters are joined. Every finding is told; only bad ones stop.
use std::fmt;

use isthmus_admin::apiserver::ApiserverStatus;
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use isthmus_trust::{Authority, CaBundle, Pair, PairFiles};
use jiff::Timestamp;

use crate::context::{ClusterFile, Context};
use crate::lab::admin;
use crate::progress::Mark;

/// A certificate that ends in so many days is worth a remark.
const SOON: i64 = 14;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// It stops the command.
    pub(super) bad: bool,
    text: String,
    cure: String,
}

impl Finding {
    fn bad(text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            bad: true,
            text: text.into(),
            cure: cure.into(),
        }
    }

    fn note(text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            bad: false,
            ..Self::bad(text, cure)
        }
    }

    /// How it is shown.
    pub(super) fn mark(&self) -> Mark {
        if self.bad { Mark::Bad } else { Mark::Note }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.cure)
    }
}

/// What the checks came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// Both clusters in one line.
    pub(super) title: String,
    /// How many checks were made.
    pub(super) checks: usize,
    /// What they found.
    pub(super) findings: Vec<Finding>,
}

/// How an apiserver is asked for its status.
pub(super) type Ask<'a> = &'a dyn Fn(&Context) -> Result<ApiserverStatus, String>;

/// Asks over the admin socket.
pub(super) fn ask_apiserver(context: &Context) -> Result<ApiserverStatus, String> {
    admin::read(&context.apiserver_socket(), "/v1/status")
}

/// Runs all checks. `others` are further clusters of the mesh that the two must get on with.
pub(super) fn check(pair: &[Context; 2], others: &[Context], now: Timestamp, ask: Ask<'_>) -> Report {
    let [a, b] = pair;
    let mut report = Report {
        title: format!("{} ↔ {}", title(&a.cluster), title(&b.cluster)),
        checks: 0,
        findings: Vec::new(),
    };
    for context in pair {
        report.add(names(&context.cluster));
        report.add(ids(&context.cluster));
        report.add(endpoints(&context.cluster));
        report.add(authority(context, now));
        report.add(server_certificate(context, now));
    }
    report.add(two(&a.cluster, &b.cluster));
    report.add(overlap(&a.cluster, &b.cluster));
    report.add(limits(&a.cluster, &b.cluster));
    for (own, peer) in [(a, b), (b, a)] {
        let third = |c: &&Context| {
            c.name() != own.name() && c.name() != peer.name() && own.clustermesh().join(c.name()).exists()
        };
        for other in others.iter().filter(third) {
            report.add(two(&peer.cluster, &other.cluster));
            report.add(overlap(&peer.cluster, &other.cluster));
        }
    }
    daemons(&mut report, pair, ask);
    report
}

impl Report {
    fn add(&mut self, finding: Option<Finding>) {
        self.checks += 1;
        self.findings.extend(finding);
    }
}

fn title(cluster: &ClusterFile) -> String {
    let cidrs: Vec<String> = cluster.pod_cidrs.iter().map(ToString::to_string).collect();
    format!("{} (id {}, {})", cluster.name, cluster.id, cidrs.join(" "))
}

fn names(cluster: &ClusterFile) -> Option<Finding> {
    let error = ClusterName::new(cluster.name.as_str()).err()?;
    Some(Finding::bad(
        error.to_string(),
        "rename it in its cluster.yaml and in its daemons' flags",
    ))
}

fn ids(cluster: &ClusterFile) -> Option<Finding> {
    let max = match cluster.max_connected_clusters {
        255 => MaxClusters::C255,
        511 => MaxClusters::C511,
        other => {
            return Some(Finding::bad(
                format!("{}: maxConnectedClusters is {other}", cluster.name),
                "it is 255 or 511, the same in the whole mesh",
            ));
        }
    };
    let error = ClusterId::new(cluster.id, max).err()?;
    Some(Finding::bad(
        format!("{}: {error}", cluster.name),
        "give it an id of its own in that range",
    ))
}

fn endpoints(cluster: &ClusterFile) -> Option<Finding> {
    let name = &cluster.name;
    if cluster.endpoints.is_empty() {
        return Some(Finding::bad(
            format!("{name} names no endpoint"),
            "write the URL of its clustermesh-apiserver under endpoints in cluster.yaml",
        ));
    }
    let odd = cluster.endpoints.iter().find(|e| host(e).is_none())?;
    Some(Finding::bad(
        format!("{name}: {odd:?} is no https URL"),
        "write e.g. https://192.0.2.7:2379",
    ))
}

/// The host of `https://host:port`, without the brackets of an IPv6 address.
fn host(endpoint: &str) -> Option<&str> {
    let rest = endpoint.strip_prefix("https://")?.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

fn two(a: &ClusterFile, b: &ClusterFile) -> Option<Finding> {
    if a.name == b.name {
        return Some(Finding::bad(
            format!("both clusters are called {}", a.name),
            "a cluster cannot be joined to itself; give one of them another name",
        ));
    }
    (a.id == b.id).then(|| {
        Finding::bad(
            format!("{} and {} both have id {}", a.name, b.name, a.id),
            "ids are part of every identity: give one of them another",
        )
    })
}

fn overlap(a: &ClusterFile, b: &ClusterFile) -> Option<Finding> {
    let pairs = a
        .pod_cidrs
        .iter()
        .flat_map(|x| b.pod_cidrs.iter().map(move |y| (x, y)));
    let (x, y) = pairs
        .into_iter()
        .find(|(x, y)| x.contains(*y) || y.contains(*x))?;
    Some(Finding::bad(
        format!("pod CIDRs overlap: {x} of {} and {y} of {}", a.name, b.name),
        "an address would be two pods; give one cluster another range",
    ))
}

fn limits(a: &ClusterFile, b: &ClusterFile) -> Option<Finding> {
    let (x, y) = (a.max_connected_clusters, b.max_connected_clusters);
    (x != y).then(|| {
        Finding::bad(
            format!("maxConnectedClusters is {x} in {} and {y} in {}", a.name, b.name),
            "identities are cut differently; it must be the same in the whole mesh",
        )
    })
}

fn authority(context: &Context, now: Timestamp) -> Option<Finding> {
    let name = context.name();
    match Authority::load(&context.pki("ca.crt"), &context.pki("ca.key"), now) {
        Err(error) => Some(Finding::bad(
            format!("authority of {name}: {error}"),
            "mend or renew it",
        )),
        Ok(authority) => soon(
            &format!("the authority of {name}"),
            authority.facts().not_after,
            now,
        ),
    }
}

fn server_certificate(context: &Context, now: Timestamp) -> Option<Finding> {
    let name = context.name();
    let files = PairFiles::new(context.pki("server.crt"), context.pki("server.key"));
    let checked = CaBundle::load(&context.pki("ca.crt")).and_then(|bundle| {
        let pair = Pair::load(&files)?;
        pair.check(&bundle, now)?;
        Ok(pair)
    });
    let pair = match checked {
        Ok(pair) => pair,
        Err(error) => {
            return Some(Finding::bad(
                format!("server certificate of {name}: {error}"),
                "issue one from the cluster's own authority",
            ));
        }
    };
    let facts = pair.facts();
    let covered = |host: &&str| {
        facts.names.iter().any(|n| n == host)
            || host
                .split_once('.')
                .is_some_and(|(_, domain)| facts.names.contains(&format!("*.{domain}")))
    };
    let hosts = context.cluster.endpoints.iter().filter_map(|e| host(e));
    let uncovered: Vec<&str> = hosts.filter(|h| !covered(h)).collect();
    if !uncovered.is_empty() {
        return Some(Finding::bad(
            format!(
                "server certificate of {name} does not name {}; it names {}",
                uncovered.join(", "),
                facts.names.join(", ")
            ),
            "issue one that names every endpoint",
        ));
    }
    soon(&format!("the server certificate of {name}"), facts.not_after, now)
}

fn soon(what: &str, end: Timestamp, now: Timestamp) -> Option<Finding> {
    let days = (end.as_second() - now.as_second()) / 86_400;
    (days < SOON).then(|| Finding::note(format!("{what} expires in {days} days"), "renew it"))
}

/// Both apiservers answer, are who they should be, and are of one version.
fn daemons(report: &mut Report, pair: &[Context; 2], ask: Ask<'_>) {
    let mut versions = Vec::new();
    for context in pair {
        let (name, id) = (context.name(), context.cluster.id);
        let status = match ask(context) {
            Ok(status) => status,
            Err(why) => {
                report.add(Some(Finding::bad(
                    format!("the clustermesh-apiserver of {name} does not answer: {why}"),
                    "start it, then connect again",
                )));
                continue;
            }
        };
        let other = status.cluster_name != name || status.cluster_id != id;
        report.add(other.then(|| {
            Finding::bad(
                format!(
                    "the clustermesh-apiserver of {name} (id {id}) exports {} (id {})",
                    status.cluster_name, status.cluster_id
                ),
                "cluster.yaml and the daemon's flags must agree",
            )
        }));
        report.add(status.certificate_fault.map(|fault| {
            Finding::note(
                format!("the clustermesh-apiserver of {name} uses an old certificate: {fault}"),
                "mend the new one",
            )
        }));
        versions.push((name.to_owned(), status.version));
    }
    let minor = |version: &str| version.split('.').take(2).collect::<Vec<_>>().join(".");
    if let [(a, va), (b, vb)] = versions.as_slice() {
        let skew = minor(va) != minor(vb);
        report.add(skew.then(|| {
            Finding::note(
                format!("{a} runs {va} and {b} runs {vb}"),
                "one minor version apart is fine, more is untested",
            )
        }));
    }
}

#[cfg(test)]
mod tests;
