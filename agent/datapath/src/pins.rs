//! The pin directory: `<pin_dir>/abi-<version>-<schema>/{maps,progs,links}` on a bpffs.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isthmus_bpf_abi::{ABI_VERSION, SCHEMA_HASH};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::clsact;
use crate::error::Error;

/// Names of files and directories of one layout.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    root: PathBuf,
}

fn path_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Path { action, path, source }
}

fn is_on(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == kind)
}

/// The name of the directory of this build's layout.
pub(crate) fn layout_name() -> String {
    format!("abi-{ABI_VERSION}-{:08x}", SCHEMA_HASH >> 32)
}

/// True if `path` is a directory of a cgroup2 hierarchy.
pub(crate) fn is_cgroup2(path: &Path) -> bool {
    is_on(path, CGROUP2_SUPER_MAGIC)
}

/// True if `path` is on a bpffs.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    is_on(path, BPF_FS_MAGIC)
}

impl Pins {
    /// The pins of this build's layout under `pin_dir`, if there are any.
    pub(crate) fn existing(pin_dir: &Path) -> Option<Self> {
        let root = pin_dir.join(layout_name());
        (is_bpffs(pin_dir) && root.join("maps").is_dir()).then_some(Self { root })
    }

    /// Makes the directories; mounts a bpffs on `pin_dir` first if that is wanted and needed.
    pub(crate) fn prepare(pin_dir: &Path, mount_bpffs: bool) -> Result<Self, Error> {
        if !pin_dir.is_dir() {
            fs::create_dir_all(pin_dir).map_err(path_error("create", pin_dir))?;
        }
        if !is_bpffs(pin_dir) {
            if !mount_bpffs {
                return Err(Error::NotBpffs {
                    path: pin_dir.to_owned(),
                });
            }
            mount(
                Some("bpf"),
                pin_dir,
                Some("bpf"),
                MsFlags::empty(),
                Some("mode=0700"),
            )
            .map_err(|e| path_error("mount a bpffs on", pin_dir)(e.into()))?;
        }
        refuse_other_layouts(pin_dir)?;
        let pins = Self {
            root: pin_dir.join(layout_name()),
        };
        for dir in [pins.root.clone(), pins.maps(), pins.programs(), pins.links()] {
            if !dir.is_dir() {
                fs::create_dir(&dir).map_err(path_error("create", &dir))?;
            }
        }
        Ok(pins)
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("progs")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The names of the links that are pinned.
    pub(crate) fn link_names(&self) -> Vec<String> {
        names(&self.links())
    }
}

/// The entries of a directory, sorted; none if it cannot be read.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Two layouts attached at once would both translate: refuse until the other one was removed.
fn refuse_other_layouts(pin_dir: &Path) -> Result<(), Error> {
    let own = layout_name();
    for name in names(pin_dir)
        .into_iter()
        .filter(|name| name.starts_with("abi-") && *name != own)
    {
        let found = pin_dir.join(name);
        if !names(&found.join("links")).is_empty() {
            return Err(Error::OtherLayout { found });
        }
    }
    Ok(())
}

/// Removes every layout of ours under `pin_dir`, which detaches the programs, and a bpffs that is mounted on `pin_dir` itself.
pub(crate) fn remove_all(pin_dir: &Path) -> Result<(), Error> {
    if !pin_dir.exists() {
        return Ok(());
    }
    for name in names(pin_dir).into_iter().filter(|name| name.starts_with("abi-")) {
        let layout = pin_dir.join(name);
        // Links first: no program may run on without its maps being known.
        for dir in ["links", "progs", "maps"].map(|dir| layout.join(dir)) {
            for pin in names(&dir) {
                let pin = dir.join(pin);
                clsact::detach_marked(&pin);
                fs::remove_file(&pin).map_err(path_error("remove", &pin))?;
            }
            if dir.is_dir() {
                fs::remove_dir(&dir).map_err(path_error("remove", &dir))?;
            }
        }
        fs::remove_dir(&layout).map_err(path_error("remove", &layout))?;
    }
    unmount_own(pin_dir)
}

/// Unmounts `pin_dir` if it is the root of a bpffs, not a directory in the host's, and nothing else is in it.
fn unmount_own(pin_dir: &Path) -> Result<(), Error> {
    let parent_is = pin_dir.parent().is_some_and(is_bpffs);
    // The kernel puts two iterators of its own into every new bpffs.
    let others = names(pin_dir)
        .into_iter()
        .any(|name| name != "maps.debug" && name != "progs.debug");
    if is_bpffs(pin_dir) && !parent_is && pin_dir != Path::new("/sys/fs/bpf") && !others {
        umount(pin_dir).map_err(|e| path_error("unmount", pin_dir)(e.into()))?;
    }
    Ok(())
}
