//! BIRD 2 as the router.
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use super::super::paths::{Paths, system_program};
use super::super::plan::{Plan, TOR_AS};
use super::super::process::Spec;
use crate::failure::{Doing, Failure, Outcome};

/// Writes the configuration and gives the one process.
pub(super) fn processes(plan: &Plan, paths: &Paths) -> Outcome<Vec<(Spec, PathBuf)>> {
    let dir = paths.tor();
    fs::create_dir_all(&dir).doing(format!("make {}", dir.display()))?;
    let conf = dir.join("bird.conf");
    fs::write(&conf, bird_conf(plan)).doing("write bird.conf")?;
    let program = system_program("bird")
        .ok_or_else(|| Failure::unreachable("bird is not installed").next("apt-get install bird2"))?;
    let control = dir.join("bird.ctl");
    super::write_tool(paths, "birdc", &format!("-s {}", control.display()))?;
    let args = [
        "-f",
        "-c",
        &conf.display().to_string(),
        "-s",
        &control.display().to_string(),
        "-P",
        &dir.join("bird.pid").display().to_string(),
    ];
    let spec = super::spec(plan, paths, "bird", &program, args.map(str::to_owned).to_vec());
    Ok(vec![(spec, control)])
}

fn bird_conf(plan: &Plan) -> String {
    let mut text = format!(
        "router id {id};\n\
         log stderr all;\n\
         protocol device {{ scan time 1; }}\n\
         protocol direct {{ ipv4; ipv6; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; merge paths yes limit 16; }}\n\
         protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; merge paths yes limit 16; }}\n\
         template bgp node {{\n\
         \x20 local as {TOR_AS};\n\
         \x20 hold time 3; keepalive time 1;\n\
         \x20 connect delay time 1; connect retry time 1; error wait time 1, 3;\n\
         \x20 graceful restart aware;\n\
         \x20 ipv4 {{ import all; export all; next hop self; }};\n\
         \x20 ipv6 {{ import all; export none; }};\n\
         }}\n",
        id = super::router_id(plan),
    );
    for (name, ip, asn) in super::neighbours(plan) {
        // BIRD's names have no dashes. Writing to a string cannot fail.
        let symbol = name.replace('-', "_");
        let _ = writeln!(
            text,
            "protocol bgp {symbol} from node {{ neighbor {ip} as {asn}; }}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_a_neighbour() -> Result<(), Failure> {
        let conf = bird_conf(&Plan::new("demo")?);
        assert!(
            conf.contains("protocol bgp west_2 from node { neighbor 172.30.2.10 as 65002; }"),
            "{conf}"
        );
        assert_eq!(conf.matches("protocol bgp ").count(), 4);
        Ok(())
    }
}
