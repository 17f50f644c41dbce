//! `meshctl bgp peers` and `meshctl bgp routes`.
use std::time::Duration;

use isthmus_admin::bgp::{PeerView, RouteView};
use serde::Serialize;

use super::show;
use super::source::{Kind, ask, sources};
use crate::cli::{ListArgs, Table};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{List, TableRow, age};
use crate::progress::Progress;

/// A session, as its speaker shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
struct PeerRow(PeerView);

impl TableRow for PeerRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (
        &[
            "NODE",
            "LOCAL AS",
            "PEER",
            "PEER AS",
            "PEER ADDRESS",
            "STATE",
            "FOR",
            "RECEIVED",
            "ADVERTISED",
        ],
        &["HOLD", "GRACEFUL RESTART", "FLAPS", "LAST ERROR"],
    );

    fn cells(&self) -> Vec<String> {
        let peer = &self.0;
        let sum = |of: fn(&isthmus_admin::bgp::PeerFamilyView) -> usize| -> String {
            let counts: Vec<String> = peer
                .families
                .iter()
                .filter(|f| f.negotiated)
                .map(|f| of(f).to_string())
                .collect();
            counts.join("+")
        };
        vec![
            peer.node.clone(),
            peer.local_asn.to_string(),
            peer.name.clone(),
            peer.peer_asn.to_string(),
            peer.peer_address.ip().to_string(),
            peer.session_state.clone(),
            age(Duration::try_from_secs_f64(peer.state_seconds).unwrap_or_default()),
            sum(|f| f.received),
            sum(|f| f.advertised),
            peer.hold_time_seconds
                .map_or_else(String::new, |s| format!("{s}s")),
            if peer.graceful_restart { "yes" } else { "no" }.into(),
            peer.counters.flaps.to_string(),
            peer.last_error.clone().unwrap_or_default(),
        ]
    }
}

/// The command `bgp peers`.
pub(crate) fn peers(args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    show(args, progress, || {
        let answers = ask::<Vec<PeerView>>(&sources(args, Kind::Speaker)?, "/v1/peers")?;
        let silent = answers.iter().any(|a| a.view.is_err());
        let rows: Vec<PeerRow> = answers
            .into_iter()
            .filter_map(|a| a.view.ok())
            .flatten()
            .map(PeerRow)
            .collect();
        Ok(peer_list(rows, silent))
    })
}

fn peer_list(rows: Vec<PeerRow>, silent: bool) -> List<PeerRow> {
    let up = rows.iter().filter(|r| r.0.established()).count();
    let exit = match up {
        0 => Exit::Down,
        up if up < rows.len() || silent => Exit::Degraded,
        _ => Exit::Ok,
    };
    let why = format!("{up} of {} BGP sessions are established", rows.len());
    List::new("BgpPeerList", rows, exit).because(why)
}

/// A route, as its speaker shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct RouteRow(RouteView);

impl TableRow for RouteRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (
        &["NODE", "PEER", "PREFIX", "NEXT HOP", "AS PATH", "IN USE"],
        &["SOURCE", "ORIGIN", "MED", "LOCAL PREF", "COMMUNITIES", "WHY"],
    );

    fn cells(&self) -> Vec<String> {
        let route = &self.0;
        let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
        let path: Vec<String> = route.as_path.iter().map(ToString::to_string).collect();
        let used = match (route.active, route.stale) {
            (true, true) => "stale",
            (true, false) => "yes",
            (false, _) => "no",
        };
        vec![
            route.node.clone(),
            route.peer.clone().unwrap_or_default(),
            route.prefix.to_string(),
            route.next_hop.map_or_else(String::new, |ip| ip.to_string()),
            path.join(" "),
            used.into(),
            route.source.clone(),
            route.origin.clone(),
            number(route.med),
            number(route.local_pref),
            route.communities.join(" "),
            route.reason.clone().unwrap_or_default(),
        ]
    }
}

/// The command `bgp routes`.
pub(crate) fn routes(table: Table, args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    let path = format!("/v1/routes?table={}", table.as_str());
    show(args, progress, || {
        let answers = ask::<Vec<RouteView>>(&sources(args, Kind::Speaker)?, &path)?;
        let silent = answers.iter().any(|a| a.view.is_err());
        let rows: Vec<RouteRow> = answers
            .into_iter()
            .filter_map(|a| a.view.ok())
            .flatten()
            .map(RouteRow)
            .collect();
        let exit = if silent { Exit::Degraded } else { Exit::Ok };
        Ok(List::new("BgpRouteList", rows, exit).because("a speaker does not answer"))
    })
}

#[cfg(test)]
mod tests {
    use isthmus_admin::bgp::{PeerCounters, PeerFamilyView};

    use super::*;
    use crate::output::Format;

    fn peer(node: &str, state: &str) -> PeerRow {
        let family = |received, advertised| PeerFamilyView {
            family: "ipv4-unicast".into(),
            negotiated: true,
            received,
            accepted: received,
            stale: 0,
            advertised,
            no_next_hop: 0,
        };
        PeerRow(PeerView {
            node: node.into(),
            name: "tor".into(),
            local_asn: 65_001,
            peer_asn: 65_000,
            peer_address: ([172, 30, 1, 5], 179).into(),
            local_address: None,
            router_id: None,
            session_state: state.into(),
            state_seconds: 61.5,
            hold_time_seconds: Some(3),
            keepalive_seconds: Some(1.0),
            graceful_restart: true,
            families: vec![family(9, 2), family(8, 1)],
            last_error: None,
            last_error_seconds: None,
            capabilities: Vec::new(),
            counters: PeerCounters::default(),
        })
    }

    #[test]
    fn sessions_are_counted_for_the_exit_code() -> Outcome {
        let up = peer_list(vec![peer("east-1", "established")], false);
        let table = "\
NODE    LOCAL AS  PEER  PEER AS  PEER ADDRESS  STATE        FOR  RECEIVED  ADVERTISED
east-1  65001     tor   65000    172.30.1.5    established  61s  9+8       2+1
";
        assert_eq!(up.text(Format::Table)?, table);
        let exits = [
            up.exit(),
            peer_list(vec![peer("east-1", "established")], true).exit(),
            peer_list(
                vec![peer("east-1", "established"), peer("east-2", "active")],
                false,
            )
            .exit(),
            peer_list(vec![peer("east-1", "idle")], false).exit(),
        ];
        assert_eq!(exits, [Exit::Ok, Exit::Degraded, Exit::Degraded, Exit::Down]);
        Ok(())
    }
}
