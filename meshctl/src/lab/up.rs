//! Brings a lab up.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nix::mount::{MsFlags, mount};

use super::ledger::{Item, Ledger};
use super::paths::{LABS, Paths};
use super::plan::{ECHO, Plan};
use super::process::{self, Spec};
use super::router::Router;
use super::{Lab, admin, daemon, down, machine, net};
use crate::exit::Exit;
use crate::failure::{Doing, Failure, Outcome};
use crate::progress::{Mark, Pending, Progress};

/// What `lab up` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpOptions {
    /// The router: FRR if it is installed, else BIRD, else our own speaker.
    #[arg(long, value_enum)]
    pub(crate) tor: Option<Router>,
    /// Only namespaces, pods and the router, without Isthmus' daemons.
    #[arg(long)]
    pub(crate) bare: bool,
    /// Seconds until it gives up, takes down what it made and says what it waited for.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    /// Leave everything in place when it fails, to look at it.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Brings the lab `name` up, or leaves nothing behind.
pub(crate) fn up(name: &str, options: &UpOptions, progress: &Progress) -> Outcome<Lab> {
    let start = Instant::now();
    let plan = Plan::new(name)?;
    machine::check()?;
    let paths = Paths::of(name)?;
    let (router, fallback) = Router::choose(options.tor)?;
    if !options.bare {
        daemon::check_programs()?;
    }
    let ledger = claim(&plan, &paths)?;
    let up = Up {
        plan: &plan,
        paths: &paths,
        ledger: &ledger,
        progress,
        router,
        bare: options.bare,
        deadline: start + Duration::from_secs(options.timeout),
    };
    if let Some(fallback) = fallback {
        progress.step(Mark::Note, "router", format!("{router}, since {fallback}"), None);
    }
    if let Err(failure) = up.build(start) {
        return Err(if options.keep {
            failure.next(format!(
                "look at {}, then meshctl lab down --name {name}",
                paths.root.display()
            ))
        } else {
            clean_up(&paths, failure)
        });
    }
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    ledger.add(&Item::Ready {
        tor: router.to_string(),
        took_ms,
    })?;
    Lab::open(name)
}

fn clean_up(paths: &Paths, failure: Failure) -> Failure {
    match down::down(paths) {
        Ok(_) => failure.because("everything that was made so far was removed again"),
        Err(more) => failure.because(more),
    }
}

/// Takes the lab's name: making its directory is the lock.
fn claim(plan: &Plan, paths: &Paths) -> Outcome<Ledger> {
    fs::create_dir_all(LABS).doing(format!("make {LABS}"))?;
    match fs::create_dir(&paths.root) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let name = &plan.name;
            return Err(Failure::usage(format!("lab {name} is already up, and stays as it is"))
                .because(format!("{} is there", paths.root.display()))
                .next(format!(
                    "meshctl lab status --name {name} | meshctl lab down --name {name} | lab up --name other"
                )));
        }
        Err(e) => return Err(e).doing(format!("make {}", paths.root.display())),
    }
    Ledger::open(&paths.ledger())
}

/// One `lab up` at work.
struct Up<'u> {
    plan: &'u Plan,
    paths: &'u Paths,
    ledger: &'u Ledger,
    progress: &'u Progress,
    router: Router,
    bare: bool,
    deadline: Instant,
}

impl Up<'_> {
    fn build(&self, start: Instant) -> Outcome {
        self.make_places()?;
        net::all(vec![
            Box::new(|| net::build(self.plan, self.ledger)),
            Box::new(|| self.write_files()),
        ])?;
        let count = self.plan.places().len();
        self.done("network", format!("{count} namespaces, joined"), start);
        net::all(vec![
            Box::new(|| self.start_router()),
            Box::new(|| self.start_rest()),
        ])?;
        self.wait_for_pods()?;
        if !self.bare {
            self.wait_for_daemons()?;
            self.wait_for_routes()?;
        }
        Ok(())
    }

    fn make_places(&self) -> Outcome {
        let logs = self.paths.root.join("logs");
        fs::create_dir_all(&logs).doing(format!("make {}", logs.display()))?;
        self.ledger.add(&Item::Cgroup {
            path: self.paths.cgroup.clone(),
        })?;
        fs::create_dir(&self.paths.cgroup).map_err(|e| {
            let failure = Failure::unreachable(format!(
                "cannot make the control group {}",
                self.paths.cgroup.display()
            ));
            failure
                .because(e)
                .next("if another lab left it there, remove it with rmdir")
        })?;
        for (_, node) in self.plan.nodes() {
            let group = self.paths.cgroup.join(&node.name);
            fs::create_dir(&group).doing(format!("make the control group {}", group.display()))?;
        }
        self.mount_bpffs()
    }

    /// A bpffs of the lab's own: unmounting it is the end of every pin in it.
    fn mount_bpffs(&self) -> Outcome {
        let path = self.paths.bpf();
        fs::create_dir(&path).doing(format!("make {}", path.display()))?;
        self.ledger.add(&Item::Mount { path: path.clone() })?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|e| {
            Failure::unreachable(format!("cannot mount a bpffs on {}", path.display()))
                .because(e)
                .next("the kernel needs CONFIG_BPF_SYSCALL, and the caller CAP_SYS_ADMIN")
        })?;
        for (_, node) in self.plan.nodes() {
            let pins = path.join(&node.name);
            fs::create_dir(&pins).doing(format!("make {}", pins.display()))?;
        }
        Ok(())
    }

    fn write_files(&self) -> Outcome {
        self.plan
            .clusters
            .iter()
            .try_for_each(|c| daemon::write_files(self.paths, c))
    }

    fn start_router(&self) -> Outcome {
        for (spec, sign) in self.router.processes(self.plan, self.paths)? {
            self.start(&spec)?;
            self.wait_for_sign(&spec, &sign)?;
        }
        Ok(())
    }

    /// A router's daemon is there when its socket is: the next one needs it.
    fn wait_for_sign(&self, spec: &Spec, sign: &Path) -> Outcome {
        let waiting = || match sign.exists() {
            true => Ok(()),
            false => Err(pending(
                self.ledger,
                &spec.role,
                format!("{} to open {}", spec.role, sign.display()),
            )),
        };
        let result = self.progress.wait("router", self.deadline, waiting);
        result.map(drop).map_err(|what| self.too_late(&what, &spec.log))
    }

    fn start_rest(&self) -> Outcome {
        for cluster in &self.plan.clusters {
            for pod in cluster.pods(ECHO) {
                self.start(&daemon::echo(self.plan, self.paths, cluster, pod)?)?;
            }
            if self.bare {
                continue;
            }
            self.start(&daemon::apiserver(self.plan, self.paths, cluster)?)?;
            for node in &cluster.nodes {
                self.start(&daemon::agent(self.plan, self.paths, cluster, node)?)?;
                self.start(&daemon::speaker(self.plan, self.paths, cluster, node)?)?;
            }
        }
        Ok(())
    }

    fn start(&self, spec: &Spec) -> Outcome {
        process::start(spec, self.ledger).map(drop)
    }

    fn wait_for_pods(&self) -> Outcome {
        let start = Instant::now();
        let mut count = 0;
        for pod in self.plan.clusters.iter().flat_map(|c| c.pods(ECHO)) {
            wait_for_echo(self.paths, self.ledger, &pod.name, self.deadline, self.progress)?;
            count += 1;
        }
        self.done("pods", format!("{count} echo servers listen"), start);
        Ok(())
    }

    fn wait_for_daemons(&self) -> Outcome {
        let start = Instant::now();
        for cluster in &self.plan.clusters {
            let run = self.paths.cluster(&cluster.name).join("run");
            self.wait_ready(
                &format!("apiserver:{}", cluster.name),
                &run.join("apiserver.sock"),
            )?;
            for node in &cluster.nodes {
                let role = format!("agent:{}", node.name);
                self.wait_ready(&role, &run.join(format!("{}.agent.sock", node.name)))?;
            }
        }
        let nodes = self.plan.nodes().count();
        let clusters = self.plan.clusters.len();
        self.done(
            "daemons",
            format!("{clusters} apiservers and {nodes} agents ready"),
            start,
        );
        Ok(())
    }

    fn wait_ready(&self, role: &str, socket: &Path) -> Outcome {
        wait_ready(
            self.paths,
            self.ledger,
            role,
            socket,
            self.deadline,
            self.progress,
        )
        .map(drop)
    }

    /// The lab is up when the router has what the nodes announce: their pods, and the address of the service by all of them.
    fn wait_for_routes(&self) -> Outcome {
        let start = Instant::now();
        let wanted = self.plan.nodes().count();
        let look = || {
            let hops = super::status::vip_next_hops(self.plan)?;
            match hops.len() {
                n if n == wanted => Ok(()),
                n => Err(format!(
                    "the router to have {wanted} ways to {} (it has {n})",
                    super::plan::VIP
                )),
            }
        };
        let result = self.progress.wait("bgp", self.deadline, look);
        result.map_err(|what| self.too_late(&what, &self.paths.log("speaker:east-1")))?;
        let text = format!("{wanted} sessions established, router {}", self.router);
        self.done("bgp", text, start);
        Ok(())
    }

    fn done(&self, name: &str, text: String, since: Instant) {
        self.progress.step(Mark::Good, name, text, Some(since.elapsed()));
    }

    fn too_late(&self, what: &str, log: &Path) -> Failure {
        late(what, log)
    }
}

/// Waits until a daemon says that it is ready.
pub(crate) fn wait_ready(
    paths: &Paths,
    ledger: &Ledger,
    role: &str,
    socket: &Path,
    deadline: Instant,
    progress: &Progress,
) -> Outcome<Duration> {
    let look = || {
        if !socket.exists() {
            return Err(pending(ledger, role, format!("{role} to open its admin socket")));
        }
        admin::ready(socket).map_err(|reason| pending(ledger, role, format!("{role}: {reason}")))
    };
    let result = progress.wait("daemons", deadline, look);
    result
        .map(|((), took)| took)
        .map_err(|what| late(&what, &paths.log(role)))
}

/// Waits until the echo server of a pod listens, by what it says in its log.
pub(crate) fn wait_for_echo(
    paths: &Paths,
    ledger: &Ledger,
    pod: &str,
    deadline: Instant,
    progress: &Progress,
) -> Outcome {
    let role = format!("pod:{pod}");
    let log: PathBuf = paths.log(&role);
    let look = || match fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("listens on")
    {
        true => Ok(()),
        false => Err(pending(
            ledger,
            &role,
            format!("the echo server in {pod} to listen"),
        )),
    };
    let result = progress.wait("pods", deadline, look);
    result.map(drop).map_err(|what| late(&what, &log))
}

/// What is waited for of a process; there is no hope when it is not there any more.
fn pending(ledger: &Ledger, role: &str, what: String) -> Pending {
    match ledger.newest(role) {
        Some(process) if !process.alive() => Pending::hopeless(format!("{what}, but it has ended")),
        _ => what.into(),
    }
}

fn late(what: &str, log: &Path) -> Failure {
    let failure = Failure::new(Exit::Timeout, format!("waited in vain for {what}"));
    let words = process::last_words(log);
    match words.is_empty() {
        true => failure.because(format!("{} is empty", log.display())),
        false => failure.because(format!("{} ends: {words}", log.display())),
    }
}
