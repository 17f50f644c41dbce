//! What this kernel can do for us, found out by trying, with the reason and the cure for what is missing.
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::config::Config;
use crate::{hooks, pins, sys};

/// One thing that the data path uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Short name.
    pub name: &'static str,
    /// What it is used for.
    pub used_for: &'static str,
    /// `None` if it is there, else why not.
    pub missing: Option<String>,
    /// What to do about it.
    pub cure: &'static str,
    /// False if there is a fallback.
    pub required: bool,
}

/// Tries everything that the data path uses, in a namespace of its own and without changing anything.
pub fn probe(config: &Config) -> Vec<Feature> {
    let feature = |name, used_for, result: Result<(), String>, cure, required| Feature {
        name,
        used_for,
        missing: result.err(),
        cure,
        required,
    };
    vec![
        feature("root", "loading programs", root(), "run as root", true),
        feature(
            "bpffs",
            "programs and maps that outlive the agent",
            bpffs(&config.pin_dir),
            "mount -t bpf bpf /sys/fs/bpf",
            true,
        ),
        feature(
            "cgroup2",
            "socket load balancing",
            cgroup2(config),
            "mount -t cgroup2 none /sys/fs/cgroup",
            config.cgroup.is_some(),
        ),
        feature(
            "cgroup-links",
            "socket load balancing that outlives the agent",
            text(sys::has_links()),
            "Linux 5.7 or newer with CONFIG_CGROUP_BPF",
            true,
        ),
        feature(
            "batches",
            "fast full loads",
            text(sys::has_batches()),
            "Linux 5.6 or newer; without: one call for each entry",
            false,
        ),
        feature(
            "tcx",
            "programs on devices, in a known order",
            tcx(),
            "Linux 6.6 or newer; without: clsact filters, in whatever order others leave",
            false,
        ),
        feature(
            "vxlan",
            "the overlay",
            vxlan(),
            "CONFIG_VXLAN (modprobe vxlan)",
            true,
        ),
    ]
}

fn text(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|e| e.to_string())
}

fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err("not root".into())
    }
}

fn bpffs(pin_dir: &Path) -> Result<(), String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known
        .lines()
        .any(|line| line.split_whitespace().last() == Some("bpf"));
    let mounted = pins::is_bpffs(pin_dir) || pins::is_bpffs(Path::new("/sys/fs/bpf"));
    if known || mounted {
        Ok(())
    } else {
        Err("the kernel has no bpf file system".into())
    }
}

fn cgroup2(config: &Config) -> Result<(), String> {
    match &config.cgroup {
        Some(path) if !pins::is_cgroup2(path) => {
            Err(format!("{} is not a cgroup2 directory", path.display()))
        }
        _ => Ok(()),
    }
}

fn tcx() -> Result<(), String> {
    if hooks::has_tcx() {
        Ok(())
    } else {
        Err("the kernel does not know tcx".into())
    }
}

/// Makes a collect-metadata VXLAN device in a namespace that ends with the thread.
fn vxlan() -> Result<(), String> {
    let attempt = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        make_vxlan()
    };
    let thread = std::thread::spawn(attempt);
    text(
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the attempt panicked"))),
    )
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// RTM_NEWLINK with IFLA_LINKINFO { kind "vxlan", data { collect metadata, port } }, and its acknowledgement.
fn make_vxlan() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK_CREATE_EXCL: u16 = 0x1 | 0x4 | 0x200 | 0x400;
    let data = [attribute(25, &[1]), attribute(15, &8472u16.to_be_bytes())].concat();
    let info = [attribute(1, b"vxlan\0"), attribute(2, &data)].concat();
    let body = [vec![0; 16], attribute(18, &info)].concat();
    let mut message = (body.len() as u32 + 16).to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_ACK_CREATE_EXCL.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer
        .get(16..20)
        .filter(|_| length >= 20)
        .and_then(|code| code.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}
