//! `meshctl version`: this program and the daemons that it reaches.
use isthmus_admin::agent::AgentStatus;
use isthmus_admin::apiserver::ApiserverStatus;
use serde::Serialize;

use super::show;
use super::source::{Kind, ask, sources};
use crate::cli::ListArgs;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{List, TableRow};
use crate::progress::Progress;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionRow {
    component: &'static str,
    place: String,
    version: String,
}

impl TableRow for VersionRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) =
        (&["COMPONENT", "PLACE", "VERSION"], &[]);

    fn cells(&self) -> Vec<String> {
        vec![self.component.into(), self.place.clone(), self.version.clone()]
    }
}

/// The command. Without daemons it is about this program only.
pub(crate) fn version(args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    show(args, progress, || Ok(list(args)))
}

fn list(args: &ListArgs) -> List<VersionRow> {
    let own = env!("CARGO_PKG_VERSION");
    let mut rows = vec![VersionRow {
        component: "meshctl",
        place: String::new(),
        version: own.into(),
    }];
    let apiservers = sources(args, Kind::Apiserver).and_then(|s| ask::<ApiserverStatus>(&s, "/v1/status"));
    for answer in apiservers.unwrap_or_default() {
        rows.extend(answer.view.ok().map(|view| VersionRow {
            component: "clustermesh-apiserver",
            place: view.cluster_name,
            version: view.version,
        }));
    }
    let agents = sources(args, Kind::Agent).and_then(|s| ask::<AgentStatus>(&s, "/v1/status"));
    for answer in agents.unwrap_or_default() {
        rows.extend(answer.view.ok().map(|view| VersionRow {
            component: "isthmus-agent",
            place: view.node,
            version: view.version,
        }));
    }
    let alike = rows.iter().all(|r| r.version == own);
    let exit = if alike { Exit::Ok } else { Exit::Degraded };
    List::new("VersionList", rows, exit).because("not all are of one version")
}
