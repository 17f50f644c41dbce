//! The lab's namespaces, links, addresses and routes.
use std::net::{IpAddr, Ipv6Addr};
use std::thread;

use ipnet::IpNet;
use isthmus_netlink::{Netlink, NetlinkError, Netns, NextHop, Route, RouteKind, Rule, Veth, sysctl};

use super::ledger::{Item, Ledger};
use super::plan::{Node, POD_MTU, Plan, Pod, UPLINK, Uplink};
use crate::failure::{Doing, Failure, Outcome};

/// The kernel's table of local addresses.
const LOCAL_TABLE: u32 = 255;
/// The lab's table that holds nothing but black holes; see [`cut`].
const CUT_TABLE: u32 = 6_666;
/// Every router of the lab asks the local table second, so that a cut can come first.
const CUT_PRIORITY: u32 = 0;
const LOCAL_PRIORITY: u32 = 1;
/// The pods' IPv6 gateway, on the node's end of each pod's link.
const POD_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Makes all namespaces and joins them.
pub(crate) fn build(plan: &Plan, ledger: &Ledger) -> Outcome {
    refuse_foreign(plan)?;
    make_namespaces(plan, ledger)?;
    let tor = open(plan, "tor")?;
    let mut work: Vec<Box<dyn FnOnce() -> Outcome + Send + '_>> = Vec::new();
    work.push(Box::new(|| join_client(plan, &tor)));
    for cluster in &plan.clusters {
        for (place, uplink) in cluster.uplinks() {
            let tor = &tor;
            work.push(Box::new(move || join_router(plan, tor, place, uplink)));
        }
    }
    all(work)?;
    let pods = plan
        .nodes()
        .map(|(_, node)| -> Box<dyn FnOnce() -> Outcome + Send + '_> {
            Box::new(move || join_pods(plan, node))
        });
    all(pods.collect())
}

/// Takes the names of the lab's namespaces away; their links go with them.
pub(crate) fn delete_namespace(name: &str) -> Outcome {
    Netns::delete(name).doing(format!("delete the network namespace {name}"))
}

/// Whether a namespace of this name exists.
pub(crate) fn namespace_exists(name: &str) -> bool {
    Netns::exists(name)
}

/// Swallows every packet that a link brings, in silence, as a cut cable does: neither end sees its carrier go, nobody gets
/// an ICMP message. Done at both ends it cuts both directions.
pub(crate) fn cut(netns: &str, link: &str, cut: bool) -> Outcome {
    let doing = || format!("{} {link} in {netns}", if cut { "cut" } else { "mend" });
    let netlink = Netns::named(netns).and_then(|ns| ns.netlink()).doing(doing())?;
    for v6 in [false, true] {
        let mut rule = Rule::lookup(v6, CUT_PRIORITY, CUT_TABLE);
        rule.input = Some(link.into());
        match cut {
            true => netlink.add_rule(&rule),
            false => netlink.delete_rule(&rule),
        }
        .doing(doing())?;
    }
    Ok(())
}

/// The links of a namespace on which packets are swallowed now.
pub(crate) fn cuts(netns: &str) -> Outcome<Vec<String>> {
    let rules = Netns::named(netns)
        .and_then(|ns| ns.netlink())
        .and_then(|netlink| netlink.rules())
        .doing(format!("read the rules of {netns}"))?;
    let cut = rules.into_iter().filter(|r| r.table == CUT_TABLE && !r.v6);
    Ok(cut.filter_map(|r| r.input).collect())
}

/// Names that exist already were not made by this lab: it must not take them over.
fn refuse_foreign(plan: &Plan) -> Outcome {
    let taken: Vec<String> = plan
        .places()
        .iter()
        .map(|place| plan.netns(place))
        .filter(|name| Netns::exists(name))
        .collect();
    if taken.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!("lab {} cannot be made", plan.name))
        .because(format!(
            "network namespaces of these names exist, and no lab's ledger has them: {}",
            taken.join(", ")
        ))
        .next("choose another --name, or delete them with `ip netns del`"))
}

fn make_namespaces(plan: &Plan, ledger: &Ledger) -> Outcome {
    let places = plan.places();
    let work = places
        .iter()
        .map(|place| -> Box<dyn FnOnce() -> Outcome + Send + '_> {
            let name = plan.netns(place);
            let routes = place == "tor" || plan.clusters.iter().any(|c| c.uplinks().any(|(p, _)| p == place));
            Box::new(move || {
                ledger.add(&Item::Namespace { name: name.clone() })?;
                let namespace = Netns::create(&name).doing(format!("make the network namespace {name}"))?;
                prepare(&namespace, routes).doing(format!("prepare the network namespace {name}"))
            })
        });
    all(work.collect())
}

/// Settings that must be there before the first link is.
fn prepare(namespace: &Netns, routes: bool) -> Result<(), NetlinkError> {
    let forward = if routes { "1" } else { "0" };
    let settings = [
        ("net.ipv4.ip_forward", forward),
        ("net.ipv6.conf.all.disable_ipv6", "0"),
        ("net.ipv6.conf.default.disable_ipv6", "0"),
        ("net.ipv6.conf.all.forwarding", forward),
        // A link that goes down and comes back is as it was.
        ("net.ipv6.conf.all.keep_addr_on_down", "1"),
        ("net.ipv6.conf.default.keep_addr_on_down", "1"),
        // Addresses must work at once.
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        // With several ways to the same place the answer may come by another one.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // The router shares flows, not packets, among its next hops.
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.fib_multipath_hash_policy", "1"),
    ];
    namespace.run(|| -> Result<(), NetlinkError> {
        for (name, value) in settings {
            sysctl::write(name, value)?;
        }
        Ok(())
    })??;
    if routes {
        let netlink = namespace.netlink()?;
        for v6 in [false, true] {
            netlink.add_rule(&Rule::lookup(v6, LOCAL_PRIORITY, LOCAL_TABLE))?;
            netlink.delete_rule(&Rule::lookup(v6, 0, LOCAL_TABLE))?;
        }
        for default in [Route::default_v4(), Route::default_v6()] {
            netlink.put_route(&default.table(CUT_TABLE).kind(RouteKind::Blackhole))?;
        }
    }
    Ok(())
}

fn join_client(plan: &Plan, tor: &Netns) -> Outcome {
    join_router(plan, tor, "client", &plan.client)
}

/// The link of a node, a control plane or the client to the router, with a default route.
fn join_router(plan: &Plan, tor: &Netns, place: &str, uplink: &Uplink) -> Outcome {
    let join = || -> Result<(), NetlinkError> {
        let own = Netns::named(&plan.netns(place))?;
        let (router, inside) = (tor.netlink()?, own.netlink()?);
        router.add_veth(&Veth::new(&uplink.tor_link, UPLINK).peer_in(&own))?;
        for net in uplink.tor {
            router.add_address(&uplink.tor_link, net)?;
        }
        for net in uplink.own {
            inside.add_address(UPLINK, net)?;
        }
        router.set_up(&uplink.tor_link)?;
        inside.set_up(UPLINK)?;
        for (default, router) in [Route::default_v4(), Route::default_v6()]
            .into_iter()
            .zip(uplink.tor)
        {
            inside.put_route(&default.via(router.addr()))?;
        }
        Ok(())
    };
    join().doing(format!("join {place} to the router"))
}

/// What a CNI plugin does: the node's own addresses among the pods, each pod's link, addresses and routes.
fn join_pods(plan: &Plan, node: &Node) -> Outcome {
    let join = || -> Result<(), NetlinkError> {
        let namespace = Netns::named(&plan.netns(&node.name))?;
        let netlink = namespace.netlink()?;
        for gateway in node.gateways {
            netlink.add_address("lo", host(gateway))?;
        }
        for cidr in node.pod_cidrs {
            // An address that no pod has must not go back to the router.
            netlink.put_route(&Route::to(cidr).kind(RouteKind::Unreachable))?;
        }
        node.pods
            .iter()
            .try_for_each(|pod| join_pod(plan, node, &netlink, pod))
    };
    join().doing(format!("join the pods of {}", node.name))
}

fn join_pod(plan: &Plan, node: &Node, netlink: &Netlink, pod: &Pod) -> Result<(), NetlinkError> {
    let namespace = Netns::named(&plan.netns(&pod.name))?;
    let inside = namespace.netlink()?;
    netlink.add_veth(&Veth::new(&pod.name, "eth0").peer_in(&namespace).mtu(POD_MTU))?;
    netlink.add_address(&pod.name, IpNet::new_assert(POD_GATEWAY6.into(), 64))?;
    netlink.set_up(&pod.name)?;
    inside.set_up("eth0")?;
    let link = inside.link("eth0")?.index;
    for ip in pod.ips {
        inside.add_address("eth0", host(ip))?;
    }
    let [gateway, _] = node.gateways;
    inside.put_route(&Route::to(host(gateway)).dev(link))?;
    inside.put_route(&Route::default_v4().next_hop(NextHop::via(gateway).on(link)))?;
    inside.put_route(&Route::default_v6().next_hop(NextHop::via(POD_GATEWAY6.into()).on(link)))?;
    let to_pod = netlink.link(&pod.name)?.index;
    for ip in pod.ips {
        netlink.put_route(&Route::to(host(ip)).dev(to_pod))?;
    }
    Ok(())
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn open(plan: &Plan, place: &str) -> Outcome<Netns> {
    let name = plan.netns(place);
    Netns::named(&name).doing(format!("open the network namespace {name}"))
}

/// Does independent work at the same time; the first failure is the result, but all of it ends first.
pub(crate) fn all(work: Vec<Box<dyn FnOnce() -> Outcome + Send + '_>>) -> Outcome {
    thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|job| scope.spawn(job)).collect();
        let results: Vec<Outcome> = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        results.into_iter().collect()
    })
}
