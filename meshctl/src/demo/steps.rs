//! The steps of the demo.
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::load::Traffic;
use super::measure::{by_cluster, first_answer_ms, last_loss_ms, latency_us, lost, lost_after, pods, said};
use super::script::{Script, Verdict, wait_for};
use super::stage::{
    BOTH, agent_status, all_sessions, echo_ip, established, heal_everything, more_after, pods_of,
    set_affinity, tell_lost, wait_for_choice, ways,
};
use crate::cli::{ConnectArgs, Scope};
use crate::connect;
use crate::failure::Outcome;
use crate::lab::fault::{self, Target};
use crate::lab::manifest::Affinity;
use crate::lab::plan::{SERVICE_PORT, VIP};
use crate::lab::{Lab, status};
use crate::progress::{Progress, seconds};
use crate::traffic::{Record, now_us};

/// The pod that most requests come from, and its node.
const POD: &str = "box-east-1";
const NODE: &str = "east-1";

/// All steps, in their order.
pub(super) fn run(script: &mut Script<'_>) {
    script.step(
        "lab",
        "Two clusters of two nodes behind one router, with the real daemons. How long did that take?",
        "up in 5 s",
        |lab, progress| heal_everything(lab, progress).and_then(|()| lab_took(lab)),
    );
    script.step(
        "bgp",
        "Every node has a BGP session with the router, which spreads the service's address over all of them.",
        "4 sessions, 4 ways",
        bgp,
    );
    script.step(
        "connect",
        "meshctl connect east west: preflight, certificates, configuration, probe.",
        "3 s",
        connect_both,
    );
    script.step(
        "global",
        "The service echo is global: a pod in east asks it, and pods of both clusters answer.",
        "both, 0 lost",
        global,
    );
    script.step(
        "affinity",
        "Its annotation now says affinity local: new connections stay in their cluster.",
        "east only, 0 lost",
        affinity,
    );
    script.step(
        "failover",
        "All echo pods of east die under load. The other cluster takes over.",
        "50 ms, 0 lost then",
        failover,
    );
    script.step(
        "cut",
        "The whole cluster west vanishes without a word: a pulled cable, no carrier lost.",
        "500 ms",
        cut,
    );
    script.step(
        "anycast",
        "A client outside asks the address that both clusters announce; then the backends go, and the route with them.",
        "0 lost, 1 s",
        anycast,
    );
    script.step(
        "restart",
        "The agent is killed under 1,000 connects a second and 100 open streams, and started again.",
        "0 lost, 0 reset",
        restart,
    );
}

fn lab_took(lab: &Lab) -> Outcome<Verdict> {
    let took = Duration::from_millis(lab.took_ms);
    let (places, processes) = (lab.plan.places().len(), lab.processes()?.len());
    Ok(Verdict {
        measured: format!(
            "up in {}: {places} namespaces, {processes} processes, router {}",
            seconds(took),
            lab.tor
        ),
        held: took <= Duration::from_secs(5),
    })
}

fn bgp(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let wanted = lab.plan.nodes().count();
    wait_for(progress, "bgp", 10, || all_sessions(lab))?;
    let restarted = speaker_restart(lab, progress)?;
    Ok(Verdict {
        measured: format!(
            "{wanted} sessions established, {wanted} ways to {VIP}; {}",
            restarted.measured
        ),
        held: restarted.held,
    })
}

/// A speaker that dies and comes back: by graceful restart the router keeps its routes.
fn speaker_restart(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let target = Target::Speaker(NODE.into());
    let all = lab.plan.nodes().count();
    fault::break_part(lab, &target)?;
    let start = Instant::now();
    fault::restart(lab, &fault::spec(lab, &target)?)?;
    let mut fewest = all;
    let look = || {
        fewest = fewest.min(status::vip_next_hops(&lab.plan)?.len());
        match established(lab) {
            up if up == all => Ok(()),
            up => Err(format!("the session of {NODE} ({up} of {all})")),
        }
    };
    wait_for(progress, "bgp", 10, look)?;
    let took = start.elapsed();
    Ok(Verdict {
        measured: format!(
            "a killed speaker is back in {}, its routes stayed ({fewest} ways)",
            seconds(took)
        ),
        held: took <= Duration::from_secs(2) && fewest == all,
    })
}

fn connect_both(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let args = ConnectArgs {
        first: "east".into(),
        second: "west".into(),
        scope: Scope {
            lab: Some(lab.plan.name.clone()),
            context_dir: None,
        },
        dry_run: false,
        no_wait: false,
        timeout: 20,
    };
    if lab.cluster_dir("east").join("clustermesh/west").exists() {
        // Joined by an earlier run: only a joining from the start can be measured.
        connect::disconnect(&args, progress)?;
    }
    let start = Instant::now();
    connect::join(&args, progress)?;
    let took = start.elapsed();
    Ok(Verdict {
        measured: format!(
            "connected in {}, probes answered in both directions",
            seconds(took)
        ),
        held: took <= Duration::from_secs(3),
    })
}

/// Requests over both families and both protocols, from both clusters.
fn global(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    wait_for_choice(lab, progress, &BOTH, &BOTH)?;
    let mut records = Vec::new();
    let mut both = true;
    for cluster in &lab.plan.clusters {
        let from = format!("box-{}-1", cluster.name);
        for ip in cluster.echo_ips {
            let tcp = Traffic::new(&from, ip, SERVICE_PORT).rate(200).count(60);
            for traffic in [tcp.clone(), tcp.udp()] {
                let answered = traffic.run(lab)?;
                both &= by_cluster(&answered).len() == lab.plan.clusters.len();
                records.extend(answered);
            }
        }
    }
    let (median, _) = latency_us(&records);
    Ok(Verdict {
        measured: format!(
            "{} requests over TCP, UDP, IPv4, IPv6 from both: {}; {} pods; {} lost; median {median} µs",
            records.len(),
            said(&by_cluster(&records)),
            pods(&records),
            tell_lost(&records),
        ),
        held: both && lost(&records) == 0 && pods(&records) == 4,
    })
}

fn affinity(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    set_affinity(lab, "east", Affinity::Local)?;
    let ((), took) = wait_for_choice(lab, progress, &["east"], &["east"])?;
    let records = Traffic::new(POD, echo_ip(lab)?, SERVICE_PORT)
        .rate(200)
        .count(100)
        .run(lab)?;
    let counts = by_cluster(&records);
    Ok(Verdict {
        measured: format!(
            "{} requests: {}; {} lost; in force {} after the annotation",
            records.len(),
            said(&counts),
            tell_lost(&records),
            seconds(took)
        ),
        held: counts.keys().eq(["east"]) && lost(&records) == 0,
    })
}

fn failover(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let load = Traffic::new(POD, echo_ip(lab)?, SERVICE_PORT)
        .rate(500)
        .start(lab)?;
    let look = || {
        load.look(|r| {
            if r.len() >= 100 {
                Ok(())
            } else {
                Err("the load to flow".into())
            }
        })
    };
    wait_for(progress, "failover", 5, look)?;
    let killed = now_us();
    fault::break_part(lab, &pods_of("east"))?;
    let told = now_us();
    let answered =
        |r: &[Record]| first_answer_ms(r, killed, "west").ok_or_else(|| "west to answer".to_owned());
    wait_for(progress, "failover", 5, || load.look(answered))?;
    // A little longer, to see that it stays like that.
    wait_for(progress, "failover", 5, || {
        load.look(|r| more_after(r, killed, 250))
    })?;
    let records = load.stop()?;
    fault::heal_part(lab, &pods_of("east"), progress)?;
    set_affinity(lab, "east", Affinity::None)?;
    wait_for_choice(lab, progress, &BOTH, &BOTH)?;
    let Some(first) = first_answer_ms(&records, killed, "west") else {
        return Ok(Verdict {
            measured: "west never answered".into(),
            held: false,
        });
    };
    let after = lost_after(&records, killed + (first * 1e3) as u64);
    // The agents may be faster than the command that writes the endpoints of both families.
    let since_told = (first - (told - killed) as f64 / 1e3).max(0.0);
    Ok(Verdict {
        measured: format!(
            "first answer from west {first:.1} ms after the kill, {since_told:.1} ms after the endpoints were gone; \
             {} of {} requests lost before that, {after} after",
            lost(&records) - after,
            records.len()
        ),
        held: since_told <= 50.0 && after == 0,
    })
}

fn cut(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let load = Traffic::new(POD, echo_ip(lab)?, SERVICE_PORT)
        .rate(200)
        .start(lab)?;
    let both = |r: &[Record]| match by_cluster(r).len() {
        2 => Ok(()),
        _ => Err("both clusters to answer".to_owned()),
    };
    wait_for(progress, "cut", 5, || load.look(both))?;
    let west = Target::Cluster("west".into());
    let moment = now_us();
    fault::break_part(lab, &west)?;
    // The router has nothing but its hold time (and graceful restart's) to find out; no packet of west comes from now on.
    let (_, left) = wait_for(progress, "cut", 15, || ways(lab, 2))?;
    // Requests that went to the dead cluster report after their time-out.
    wait_for(progress, "cut", 8, || load.look(|r| more_after(r, moment, 400)))?;
    let records = load.stop()?;
    fault::heal_part(lab, &west, progress)?;
    let (_, back) = wait_for_choice(lab, progress, &BOTH, &BOTH)?;
    wait_for(progress, "bgp", 15, || all_sessions(lab))?;
    let last = last_loss_ms(&records, moment);
    let text = last.map_or_else(|| "at once".into(), |ms| format!("{ms:.0} ms after the cut"));
    Ok(Verdict {
        measured: format!(
            "last connect to west {text}; {} of {} requests lost; the router left west after {}; in use again {} after the mend",
            lost(&records),
            records.len(),
            seconds(left),
            seconds(back)
        ),
        held: last.unwrap_or(0.0) <= 500.0,
    })
}

fn anycast(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    let ask = Traffic::new("client", IpAddr::from(VIP), SERVICE_PORT)
        .rate(200)
        .count(120);
    let records = ask.run(lab)?;
    let ways_before = status::vip_next_hops(&lab.plan).map_or(0, |hops| hops.len());
    // The last backend of the last cluster goes: nobody may be sent there.
    fault::break_part(lab, &pods_of("west"))?;
    wait_for_choice(lab, progress, &BOTH, &["east"])?;
    let one = ask.run(lab)?;
    fault::break_part(lab, &pods_of("east"))?;
    let gone = Instant::now();
    wait_for(progress, "anycast", 10, || ways(lab, 0))?;
    let withdrawn = gone.elapsed();
    for cluster in ["east", "west"] {
        fault::heal_part(lab, &pods_of(cluster), progress)?;
    }
    wait_for(progress, "anycast", 10, || ways(lab, 4))?;
    let back = gone.elapsed().saturating_sub(withdrawn);
    let counts = by_cluster(&records);
    Ok(Verdict {
        measured: format!(
            "{ways_before} ways, {} requests: {}; {} lost; without west: {}, {} lost; no backend: withdrawn in {}, back in {}",
            records.len(),
            said(&counts),
            tell_lost(&records),
            said(&by_cluster(&one)),
            tell_lost(&one),
            seconds(withdrawn),
            seconds(back),
        ),
        held: counts.len() == 2 && lost(&records) + lost(&one) == 0 && withdrawn <= Duration::from_secs(1),
    })
}

fn restart(lab: &Lab, progress: &Progress) -> Outcome<Verdict> {
    const STREAMS: usize = 100;
    let target = Target::Agent(NODE.into());
    wait_for_choice(lab, progress, &BOTH, &BOTH)?;
    let load = Traffic::new(POD, echo_ip(lab)?, SERVICE_PORT)
        .rate(1000)
        .streams(100)
        .start(lab)?;
    let look = |r: &[Record]| {
        if r.len() > 500 + STREAMS {
            Ok(())
        } else {
            Err("the load to flow".to_owned())
        }
    };
    wait_for(progress, "restart", 10, || load.look(look))?;
    let killed = now_us();
    fault::break_part(lab, &target)?;
    wait_for(progress, "restart", 10, || {
        load.look(|r| more_after(r, killed, 1000))
    })?;
    let back = Instant::now();
    fault::heal_part(lab, &target, progress)?;
    let back = back.elapsed();
    let ready = now_us();
    wait_for(progress, "restart", 10, || {
        load.look(|r| more_after(r, ready, 1000))
    })?;
    let records = load.stop()?;
    let writes = agent_status(lab, "east", NODE).map(|s| s.writes);
    let written = writes.map_or_else(
        |why| why,
        |w| format!("{} map entries and {} network objects", w.map_entries, w.network),
    );
    let reset = records
        .iter()
        .filter(|r| matches!(&r.answer, Err(why) if why.starts_with("stream broken")))
        .count();
    let lost = lost(&records) - reset;
    Ok(Verdict {
        measured: format!(
            "{} requests, {lost} lost, {reset} of {STREAMS} streams reset; ready again in {}; the new agent wrote {written}",
            records.len(),
            seconds(back)
        ),
        held: lost == 0 && reset == 0,
    })
}
