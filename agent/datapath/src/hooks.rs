//! The programs and where they are attached. Links are pinned: they outlive us, and a restart finds them by name.
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya_obj::generated::bpf_attach_type as At;

use crate::clsact;
use crate::device::Device;
use crate::error::Error;
use crate::pins::Pins;
use crate::sys;

/// One program of the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) program: &'static str,
    attach_type: u32,
}

const fn hook(program: &'static str, attach_type: At) -> Hook {
    Hook {
        program,
        attach_type: attach_type as u32,
    }
}

impl Hook {
    /// For packets that come in.
    pub(crate) fn is_ingress(self) -> bool {
        self.attach_type == At::BPF_TCX_INGRESS as u32
    }
}

/// Socket load balancing. The hooks that undo come first, so that nothing is translated that could not be undone.
pub(crate) const SOCKET: [Hook; 8] = [
    hook("recvmsg4", At::BPF_CGROUP_UDP4_RECVMSG),
    hook("recvmsg6", At::BPF_CGROUP_UDP6_RECVMSG),
    hook("getpeername4", At::BPF_CGROUP_INET4_GETPEERNAME),
    hook("getpeername6", At::BPF_CGROUP_INET6_GETPEERNAME),
    hook("connect4", At::BPF_CGROUP_INET4_CONNECT),
    hook("connect6", At::BPF_CGROUP_INET6_CONNECT),
    hook("sendmsg4", At::BPF_CGROUP_UDP4_SENDMSG),
    hook("sendmsg6", At::BPF_CGROUP_UDP6_SENDMSG),
];
/// The tunnel device.
pub(crate) const OVERLAY: [Hook; 2] = [
    hook("overlay_ingress", At::BPF_TCX_INGRESS),
    hook("overlay_egress", At::BPF_TCX_EGRESS),
];
/// Uplinks with Ethernet headers.
pub(crate) const EDGE: [Hook; 2] = [
    hook("edge_egress", At::BPF_TCX_EGRESS),
    hook("edge_ingress", At::BPF_TCX_INGRESS),
];
/// Uplinks without.
pub(crate) const EDGE_L3: [Hook; 2] = [
    hook("edge_l3_egress", At::BPF_TCX_EGRESS),
    hook("edge_l3_ingress", At::BPF_TCX_INGRESS),
];

/// Every program of the object.
pub(crate) fn all() -> impl Iterator<Item = Hook> {
    SOCKET.into_iter().chain(OVERLAY).chain(EDGE).chain(EDGE_L3)
}

/// A hook that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Program.
    pub program: String,
    /// Device or cgroup.
    pub target: String,
    /// What holds it there: `cgroup link`, `tcx link` or `clsact filter`.
    pub by: &'static str,
    /// True if it was there before this process.
    pub adopted: bool,
}

/// What a pinned link is attached to, from the name of its pin: `program` or `program-ifindex`.
pub(crate) fn parse(name: &str) -> Option<(Hook, Option<u32>)> {
    let (program, ifindex) = match name.split_once('-') {
        Some((program, ifindex)) => (program, Some(ifindex.parse().ok()?)),
        None => (name, None),
    };
    all()
        .find(|hook| hook.program == program)
        .map(|hook| (hook, ifindex))
}

fn bpf_error(call: &'static str, object: &str) -> impl FnOnce(io::Error) -> Error {
    let object = object.to_owned();
    move |source| Error::Bpf { call, object, source }
}

/// Puts the programs in `programs` into every link that is pinned already, and removes pins whose target is gone.
pub(crate) fn update_links(
    pins: &Pins,
    program: impl Fn(Hook) -> Result<OwnedFd, Error>,
) -> Result<(), Error> {
    for name in pins.link_names() {
        let Some((hook, _)) = parse(&name) else { continue };
        let path = pins.links().join(&name);
        let link = sys::open_pin(&path).map_err(bpf_error("open", &name))?;
        match sys::link_update(link.as_fd(), program(hook)?.as_fd()) {
            Ok(()) => {}
            // The device or the cgroup is gone: the link is a shell.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => remove(&path)?,
            Err(e) => return Err(bpf_error("update the link of", &name)(e)),
        }
    }
    Ok(())
}

/// Removes a pin, which detaches the program unless a process still holds the link.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|source| Error::Path {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

/// Attaches a program to a cgroup, or finds it attached there.
pub(crate) fn attach_cgroup(
    pins: &Pins,
    hook: Hook,
    cgroup: &Path,
    program: impl Fn(Hook) -> Result<OwnedFd, Error>,
) -> Result<Attached, Error> {
    let open = |source| Error::Path {
        action: "open",
        path: cgroup.to_owned(),
        source,
    };
    let dir = File::open(cgroup).map_err(open)?;
    let id = dir.metadata().map_err(open)?.ino();
    let path = pins.links().join(hook.program);
    let target = cgroup.display().to_string();
    let adopted = holds(&path, |info| info.kind == sys::LINK_CGROUP && info.target == id)?;
    if !adopted {
        let fd = program(hook)?;
        let link = sys::link_cgroup(fd.as_fd(), dir.as_fd(), hook.attach_type)
            .map_err(bpf_error("attach to the cgroup", hook.program))?;
        repin(link.as_fd(), &path)?;
    }
    Ok(Attached {
        program: hook.program.into(),
        target,
        by: "cgroup link",
        adopted,
    })
}

/// Attaches a program to a device by a tcx link, or finds it attached there.
pub(crate) fn attach_device(
    pins: &Pins,
    hook: Hook,
    device: &Device,
    program: impl Fn(Hook) -> Result<OwnedFd, Error>,
) -> Result<Attached, Error> {
    // A bpffs takes no dots in names, devices do: so the index names the pin.
    let path = pins.links().join(format!("{}-{}", hook.program, device.index));
    let adopted = holds(&path, |info| {
        info.kind == sys::LINK_TCX && info.target as u32 == device.index
    })?;
    if !adopted {
        let fd = program(hook)?;
        let link = sys::link_tcx(fd.as_fd(), device.index, hook.attach_type)
            .map_err(bpf_error("attach to the device", hook.program))?;
        repin(link.as_fd(), &path)?;
    }
    Ok(Attached {
        program: hook.program.into(),
        target: device.name.clone(),
        by: "tcx link",
        adopted,
    })
}

/// True if the link that is pinned under `path` is the wanted one.
fn holds(path: &Path, wanted: impl Fn(&sys::LinkInfo) -> bool) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let foreign = |e: io::Error| Error::ForeignPin {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let link = sys::open_pin(path).map_err(foreign)?;
    let info = sys::link_info(link.as_fd()).map_err(foreign)?;
    Ok(wanted(&info))
}

/// Pins an object under `path`, over what is pinned there, with no moment without a pin.
pub(crate) fn repin(fd: impl AsFd, path: &Path) -> Result<(), Error> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let fresh = path.with_file_name(format!("{name}_new"));
    if fresh.exists() {
        remove(&fresh)?;
    }
    sys::pin(fd.as_fd(), &fresh).map_err(bpf_error("pin", &name))?;
    fs::rename(&fresh, path).map_err(|source| Error::Path {
        action: "rename",
        path: fresh,
        source,
    })
}

/// Removes the links that are not in `wanted` (program and device index), and those whose device is gone.
pub(crate) fn prune(pins: &Pins, wanted: impl Fn(&str, Option<u32>) -> bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for name in pins.link_names() {
        let path = pins.links().join(&name);
        let filter = clsact::place(&name);
        let Some((hook, ifindex)) = parse(filter.unwrap_or(&name)) else {
            continue;
        };
        let dead = match (filter, ifindex) {
            (Some(_), Some(index)) => Device::name_of(index).is_none(),
            (None, Some(_)) => holds(&path, |info| info.target as u32 == 0)?,
            _ => false,
        };
        if dead || !wanted(hook.program, ifindex) {
            clsact::detach_marked(&path);
            remove(&path)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The links that are pinned, for people.
pub(crate) fn list(pins: &Pins) -> Vec<Attached> {
    let describe = |name: String| {
        if let Some((hook, Some(index))) = clsact::place(&name).and_then(parse) {
            let target = Device::name_of(index).unwrap_or_else(|| format!("device {index}"));
            return Some(Attached {
                program: hook.program.into(),
                target,
                by: "clsact filter",
                adopted: true,
            });
        }
        let (hook, ifindex) = parse(&name)?;
        let info = sys::open_pin(&pins.links().join(&name))
            .and_then(|fd| sys::link_info(fd.as_fd()))
            .ok()?;
        let (target, by) = match ifindex {
            None => (format!("cgroup {}", info.target), "cgroup link"),
            Some(_) if info.target as u32 == 0 => ("gone device".into(), "tcx link"),
            Some(index) => (
                Device::name_of(index).unwrap_or_else(|| format!("device {index}")),
                "tcx link",
            ),
        };
        Some(Attached {
            program: hook.program.into(),
            target,
            by,
            adopted: true,
        })
    };
    pins.link_names().into_iter().filter_map(describe).collect()
}

/// True if this kernel has tcx (6.6).
pub(crate) fn has_tcx() -> bool {
    // Loopback is device 1 in every namespace; without tcx the attach type is unknown.
    !matches!(sys::query(1, At::BPF_TCX_INGRESS as u32), Err(e) if e.raw_os_error() == Some(libc::EINVAL))
}

/// Ids of the programs at the hook of a cgroup, ours and others'.
pub(crate) fn cgroup_programs(cgroup: &Path, hook: Hook) -> io::Result<Vec<u32>> {
    let dir = File::open(cgroup)?;
    sys::query(dir.as_raw_fd() as u32, hook.attach_type)
}

/// Ids of the programs at the tcx hook of a device, ours and others'.
pub(crate) fn device_programs(index: u32, hook: Hook) -> io::Result<Vec<u32>> {
    sys::query(index, hook.attach_type)
}
