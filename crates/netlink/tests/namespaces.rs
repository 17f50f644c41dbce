//! Two namespaces joined by a veth pair, everything made, listed and taken away again through this crate.
//!
//! ```text
//!   agent-nl-PID-a                       agent-nl-PID-b
//!   ┌──────────────────┐   veth mtu 1400 ┌──────────────────┐
//!   │ ab  10.9.0.1/24  ├─────────────────┤ ba  10.9.0.2/24  │
//!   │     fd09::1/64   │                 │     fd09::2/64   │
//!   └──────────────────┘                 └──────────────────┘
//! ```
use std::net::{IpAddr, TcpListener, TcpStream};

use isthmus_netlink::{
    LinkKind, Mac, Monitor, Netlink, NetlinkError, Netns, NextHop, Route, RouteKind, Rule, Veth, Vxlan,
    sysctl,
};

type Test = Result<(), Box<dyn std::error::Error>>;

/// Namespaces of one test, deleted with it.
struct Pair {
    a: Netns,
    b: Netns,
}

impl Pair {
    fn create(story: &str) -> Result<Option<Self>, NetlinkError> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return Ok(None);
        }
        let name = |side| format!("agent-nl-{}-{story}-{side}", std::process::id());
        Ok(Some(Self {
            a: Netns::create(&name("a"))?,
            b: Netns::create(&name("b"))?,
        }))
    }

    fn join(&self) -> Result<(Netlink, Netlink), Box<dyn std::error::Error>> {
        let (a, b) = (self.a.netlink()?, self.b.netlink()?);
        let macs = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        a.add_veth(
            &Veth::new("ab", "ba")
                .peer_in(&self.b)
                .mtu(1400)
                .macs(macs.0, macs.1),
        )?;
        for (side, link, v4, v6) in [
            (&a, "ab", "10.9.0.1/24", "fd09::1/64"),
            (&b, "ba", "10.9.0.2/24", "fd09::2/64"),
        ] {
            side.add_address(link, v4.parse()?)?;
            side.add_address(link, v6.parse()?)?;
            side.set_up(link)?;
        }
        Ok((a, b))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.a, &self.b] {
            let _ = Netns::delete(namespace.name());
        }
    }
}

#[test]
fn a_veth_pair_carries_tcp_of_both_families() -> Test {
    let Some(pair) = Pair::create("tcp")? else {
        return Ok(());
    };
    let (a, b) = pair.join()?;
    let link = b.link("ba")?;
    assert_eq!((link.kind, link.mtu, link.up), (LinkKind::Veth, 1400, true));
    assert_eq!(link.mac, Some(Mac([2, 0, 0, 0, 0, 2])));
    assert!(
        a.find_link("ba")?.is_none(),
        "the peer lives in the other namespace"
    );
    for ip in ["10.9.0.2", "fd09::2"] {
        let ip: IpAddr = ip.parse()?;
        let listener = pair.b.run(move || TcpListener::bind((ip, 7000)))??;
        let stream = pair.a.run(move || TcpStream::connect((ip, 7000)))??;
        assert_eq!(listener.accept()?.1.ip(), stream.local_addr()?.ip());
    }
    let text = pair.a.command("cat").arg("/proc/net/dev").output()?;
    assert!(
        String::from_utf8_lossy(&text.stdout).contains("ab:"),
        "a command starts in the namespace"
    );
    Ok(())
}

#[test]
fn routes_rules_and_neighbours_come_back_as_they_were_put() -> Test {
    let Some(pair) = Pair::create("routes")? else {
        return Ok(());
    };
    let (a, _b) = pair.join()?;
    let index = a.link("ab")?.index;
    let ours = |route: Route| route.table(7441).protocol(77);
    let routes = [
        ours(Route::to("10.20.0.0/24".parse()?).dev(index))
            .mtu(1350)
            .source("10.9.0.1".parse()?),
        ours(
            Route::to("10.21.0.0/24".parse()?)
                .next_hop(NextHop::via("10.99.0.1".parse()?).on(index).onlink()),
        ),
        ours(Route::to("10.22.0.0/24".parse()?)).kind(RouteKind::Blackhole),
        ours(Route::to("10.23.0.0/24".parse()?))
            .next_hop(NextHop::via("10.9.0.2".parse()?).on(index))
            .next_hop(NextHop::via("10.9.0.3".parse()?).on(index).weight(3)),
        ours(Route::to("fd20::/64".parse()?).dev(index)).metric(512),
    ];
    assert_eq!(a.routes_in(7441)?, [], "a table that nobody has used");
    for result in a.put_routes(&routes) {
        result?;
    }
    let listed = || -> Result<Vec<Route>, NetlinkError> {
        let mut list: Vec<_> = a
            .routes()?
            .into_iter()
            .filter(|route| route.table == 7441)
            .collect();
        let mut filtered = a.routes_in(7441)?;
        filtered.sort();
        assert_eq!(filtered, list, "the kernel's own filter");
        list.sort();
        Ok(list)
    };
    assert_eq!(listed()?, routes.to_vec());
    a.put_route(&routes[0].clone().mtu(1300))?;
    assert_eq!(listed()?[0].mtu, Some(1300), "put replaces");
    for result in a.delete_routes(routes.iter().chain(&routes)) {
        result?;
    }
    assert_eq!(listed()?, []);

    let rule = Rule::lookup(false, 5190, 7441).protocol(77);
    a.add_rule(&rule)?;
    a.add_rule(&rule)?;
    let mut ours = a.rules()?;
    ours.retain(|found| found.priority == 5190);
    assert_eq!(ours, std::slice::from_ref(&rule));
    a.delete_rule(&rule)?;
    a.delete_rule(&rule)?;

    let mac = Mac([2, 0, 0, 0, 0, 9]);
    a.put_neighbour("ab", "10.9.0.9".parse()?, mac)?;
    let neighbours = a.neighbours()?;
    assert!(
        neighbours
            .iter()
            .any(|n| n.ip.to_string() == "10.9.0.9" && n.mac == Some(mac) && n.permanent)
    );
    a.delete_neighbour("ab", "10.9.0.9".parse()?)?;
    Ok(())
}

#[test]
fn a_vxlan_device_collects_metadata_and_a_second_is_refused_with_a_cure() -> Test {
    let Some(pair) = Pair::create("vxlan")? else {
        return Ok(());
    };
    let a = pair.a.netlink()?;
    match a.add_vxlan(&Vxlan::external("vx0").mtu(1450).mac(Mac([2, 1, 1, 1, 1, 1]))) {
        Err(NetlinkError::Refused {
            errno: libc::EOPNOTSUPP,
            ..
        }) => {
            eprintln!("skipped: this kernel has no VXLAN");
            return Ok(());
        }
        other => other?,
    }
    a.set_up("vx0")?;
    let link = a.link("vx0")?;
    let expected = LinkKind::Vxlan {
        port: 8472,
        external: true,
        vni: 0,
    };
    assert_eq!((link.kind, link.mtu), (expected, 1450));
    let second = a
        .add_vxlan(&Vxlan::external("vx1"))
        .and_then(|()| a.set_up("vx1"));
    let text = second.expect_err("the port is taken").to_string();
    assert!(
        text.contains("vx1") && text.contains("ip -d link show type vxlan"),
        "{text}"
    );
    assert!(matches!(a.link("nothing"), Err(NetlinkError::Missing { .. })));
    a.delete_link("vx0")?;
    a.delete_link("vx0")?;
    Ok(())
}

#[test]
fn links_are_renamed_moved_and_sysctls_belong_to_a_namespace() -> Test {
    let Some(pair) = Pair::create("move")? else {
        return Ok(());
    };
    let (a, b) = (pair.a.netlink()?, pair.b.netlink()?);
    a.add_veth(&Veth::new("x0", "x1"))?;
    a.rename("x1", "y1")?;
    a.move_to("y1", &pair.b)?;
    assert!(b.find_link("y1")?.is_some() && a.find_link("y1")?.is_none());
    assert!(pair.a.run(|| sysctl::write("net.ipv4.ip_forward", "1"))??);
    assert!(
        !pair.a.run(|| sysctl::write("net.ipv4.ip_forward", "1"))??,
        "written only once"
    );
    assert_eq!(pair.b.run(|| sysctl::read("net.ipv4.ip_forward"))??, "0");
    assert!(Netns::list()?.iter().any(|name| name == pair.a.name()));
    let again = Netns::create(pair.a.name())
        .expect_err("the name is taken")
        .to_string();
    assert!(again.contains("choose another name"), "{again}");
    Ok(())
}

#[tokio::test]
async fn a_monitor_tells_that_a_rule_went() -> Test {
    let Some(pair) = Pair::create("watch")? else {
        return Ok(());
    };
    let a = pair.a.netlink()?;
    let mut monitor = Monitor::open_in(&pair.a)?;
    a.add_rule(&Rule::lookup(true, 5190, 7441))?;
    let changes = tokio::time::timeout(std::time::Duration::from_secs(2), monitor.next()).await??;
    assert_eq!(changes, [isthmus_netlink::Change::Rule]);
    Ok(())
}
