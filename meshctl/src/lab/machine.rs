//! What the lab needs of the machine, looked at before anything is made.
use std::fs;
use std::path::Path;

use crate::failure::{Doing, Failure, Outcome};

/// Fails with one sentence if the caller or the kernel cannot do it.
pub(crate) fn check() -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::unreachable("the lab needs root")
            .because("it makes network namespaces, mounts a bpffs and loads eBPF programs")
            .next("sudo meshctl lab up"));
    }
    let filesystems = fs::read_to_string("/proc/filesystems").doing("read /proc/filesystems")?;
    match lacks(&filesystems, |path| Path::new(path).exists()) {
        None => Ok(()),
        Some((what, cure)) => {
            Err(Failure::unreachable(format!("this kernel has no {what}, and the lab needs it")).next(cure))
        }
    }
}

/// The first thing that the kernel lacks, and what to do.
fn lacks(filesystems: &str, exists: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
    let mountable = |name: &str| {
        filesystems
            .lines()
            .any(|l| l.split_whitespace().last() == Some(name))
    };
    let needs = [
        (
            exists("/proc/self/ns/net"),
            "network namespaces",
            "use a kernel with CONFIG_NET_NS, as Debian's is",
        ),
        (
            mountable("bpf"),
            "bpf file system",
            "use a kernel with CONFIG_BPF_SYSCALL, as Debian's is",
        ),
        (
            mountable("cgroup2"),
            "cgroup2 hierarchy",
            "use a kernel with CONFIG_CGROUPS and CONFIG_CGROUP_BPF, as Debian's is",
        ),
        (
            exists("/proc/sys/net/ipv6"),
            "IPv6",
            "load the module ipv6, or start the kernel without ipv6.disable=1",
        ),
    ];
    needs
        .into_iter()
        .find(|(there, ..)| !there)
        .map(|(_, what, cure)| (what, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "nodev\tsysfs\nnodev\tbpf\nnodev\tcgroup2\n\text4\n";

    #[test]
    fn the_first_thing_that_is_missing_is_named_with_its_cure() {
        assert_eq!(lacks(ALL, |_| true), None);
        let (what, cure) = lacks("nodev\tcgroup2\n", |_| true).expect("no bpf");
        assert!(what.contains("bpf") && cure.contains("CONFIG_BPF_SYSCALL"));
        let (what, cure) = lacks(ALL, |path| !path.contains("ipv6")).expect("no IPv6");
        assert!(what == "IPv6" && cure.contains("ipv6.disable"));
    }
}
