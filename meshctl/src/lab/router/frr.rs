//! FRRouting as the router: zebra and bgpd, with all their files in the lab's directory.
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, chown};

use super::super::paths::{Paths, frr_program};
use super::super::plan::{Plan, TOR_AS};
use super::super::process::Spec;
use crate::failure::{Doing, Failure, Outcome};

/// Writes the configuration and gives zebra, then bgpd.
pub(super) fn processes(plan: &Plan, paths: &Paths) -> Outcome<Vec<(Spec, PathBuf)>> {
    let dir = paths.tor();
    fs::create_dir_all(&dir).doing(format!("make {}", dir.display()))?;
    let files = [("zebra.conf", zebra_conf()), ("bgpd.conf", bgpd_conf(plan))];
    for (name, text) in files {
        fs::write(dir.join(name), text).doing(format!("write {name}"))?;
    }
    give_to_frr(&dir)?;
    super::write_tool(paths, "vtysh", &format!("--vty_socket {}", dir.display()))?;
    let socket = dir.join("zserv.api");
    let mut processes = Vec::new();
    for (role, sign) in [("zebra", socket.clone()), ("bgpd", dir.join("bgpd.vty"))] {
        let program = frr_program(role).ok_or_else(|| {
            Failure::unreachable(format!("{role} is not installed")).next("apt-get install frr")
        })?;
        let path = |file: &str| dir.join(file).display().to_string();
        let args = [
            "-u",
            "frr",
            "-g",
            "frr",
            "-A",
            "127.0.0.1",
            "-P",
            "0",
            "--log",
            "stdout",
            "-z",
            &socket.display().to_string(),
            "--vty_socket",
            &dir.display().to_string(),
            "-f",
            &path(&format!("{role}.conf")),
            "-i",
            &path(&format!("{role}.pid")),
        ];
        let args = args.map(str::to_owned).to_vec();
        processes.push((super::spec(plan, paths, role, &program, args), sign));
    }
    Ok(processes)
}

/// The daemons give up root and then write their sockets there.
fn give_to_frr(dir: &std::path::Path) -> Outcome {
    let user = User::from_name("frr").doing("look up the user frr")?;
    let group = Group::from_name("frr").doing("look up the group frr")?;
    let uid: Option<Uid> = user.map(|u| u.uid);
    let gid: Option<Gid> = group.map(|g| g.gid);
    chown(dir, uid, gid).doing(format!("give {} to frr", dir.display()))
}

fn zebra_conf() -> String {
    "hostname tor\nlog stdout informational\n".into()
}

/// Sessions with every node, both families over one IPv4 session, ECMP over both clusters' AS numbers, hold time 3 s.
fn bgpd_conf(plan: &Plan) -> String {
    let mut text = format!(
        "hostname tor\n\
         log stdout informational\n\
         router bgp {TOR_AS}\n \
          bgp router-id {}\n \
          no bgp ebgp-requires-policy\n \
          no bgp default ipv4-unicast\n \
          bgp bestpath as-path multipath-relax\n \
          bgp graceful-restart\n \
          neighbor nodes peer-group\n \
          neighbor nodes timers 1 3\n \
          neighbor nodes timers connect 1\n \
          neighbor nodes advertisement-interval 0\n",
        super::router_id(plan),
    );
    for (name, ip, asn) in super::neighbours(plan) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " neighbor {ip} remote-as {asn}");
        let _ = writeln!(text, " neighbor {ip} peer-group nodes");
        let _ = writeln!(text, " neighbor {ip} description {name}");
    }
    for family in ["ipv4", "ipv6"] {
        let _ = write!(
            text,
            " address-family {family} unicast\n  \
               neighbor nodes activate\n  \
               redistribute connected\n  \
               maximum-paths 16\n \
              exit-address-family\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_a_neighbour_in_both_families() -> Result<(), Failure> {
        let conf = bgpd_conf(&Plan::new("demo")?);
        for line in [
            "router bgp 65000",
            " bgp router-id 198.51.100.1",
            " neighbor 172.30.1.6 remote-as 65001",
            " neighbor 172.30.2.10 remote-as 65002",
            " neighbor 172.30.2.10 description west-2",
            " address-family ipv6 unicast",
            "  neighbor nodes activate",
        ] {
            assert!(conf.lines().any(|l| l == line), "{line:?} is missing in:\n{conf}");
        }
        Ok(())
    }
}
