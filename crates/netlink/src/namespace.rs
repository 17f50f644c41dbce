//! Network namespaces with a name, kept where `ip netns` keeps them.
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Netlink, NetlinkError};

/// Where named namespaces live; shared with iproute2.
const DIRECTORY: &str = "/run/netns";

/// A network namespace, held open: it lives at least as long as the handle.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes a namespace and keeps it under a name, as `ip netns add` does. Its loopback is up.
    pub fn create(name: &str) -> Result<Self, NetlinkError> {
        let action = || format!("create network namespace {name}");
        let fail = |e: io::Error| NetlinkError::io(action(), e);
        check_name(name)?;
        prepare_directory().map_err(fail)?;
        let path = path_of(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(fail)?;
        let target = path.clone();
        let made = on_new_thread(move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        });
        if let Err(e) = made {
            let _ = fs::remove_file(&path);
            return Err(fail(e));
        }
        let namespace = Self::named(name)?;
        namespace.netlink()?.set_up("lo")?;
        Ok(namespace)
    }

    /// Opens a named namespace.
    pub fn named(name: &str) -> Result<Self, NetlinkError> {
        check_name(name)?;
        let file = File::open(path_of(name)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => NetlinkError::Missing {
                kind: "network namespace",
                name: name.to_owned(),
            },
            _ => NetlinkError::io(format!("open network namespace {name}"), e),
        })?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file),
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetlinkError> {
        let file = File::open("/proc/thread-self/ns/net")
            .map_err(|e| NetlinkError::io("open this thread's network namespace", e))?;
        Ok(Self {
            name: String::new(),
            file: Arc::new(file),
        })
    }

    /// Takes the name away, as `ip netns del` does; the namespace ends when nothing runs in it any more. Deleting what
    /// is not there is no error.
    pub fn delete(name: &str) -> Result<(), NetlinkError> {
        check_name(name)?;
        let path = path_of(name);
        let fail = |e: io::Error| NetlinkError::io(format!("delete network namespace {name}"), e);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: the file is there but nothing is mounted on it (a half-made namespace).
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(fail(e.into())),
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail(e)),
            _ => Ok(()),
        }
    }

    /// The names of all named namespaces, sorted.
    pub fn list() -> Result<Vec<String>, NetlinkError> {
        let fail = |e: io::Error| NetlinkError::io(format!("list {DIRECTORY}"), e);
        let entries = match fs::read_dir(DIRECTORY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(fail)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// True if there is a namespace of this name.
    pub fn exists(name: &str) -> bool {
        path_of(name).exists()
    }

    /// Its name; empty for [`Self::current`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=…`.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// A netlink handle inside it.
    pub fn netlink(&self) -> Result<Netlink, NetlinkError> {
        self.run(Netlink::open)?
    }

    /// Runs a closure inside it, on a thread of its own, so the caller's namespace is never touched. Sockets that the
    /// closure opens stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        let file = self.file.as_fd();
        on_new_thread(move || setns(file, CloneFlags::CLONE_NEWNET).map(|()| work()))
            .map_err(|e| NetlinkError::io(format!("enter network namespace {}", self.name), e))
    }

    /// Makes a command start inside it. Only the network namespace changes: mounts (/sys, bpffs, cgroup2) stay as they
    /// are, unlike with `ip netns exec`.
    pub fn enter<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let file = Arc::clone(&self.file);
        // SAFETY: the closure runs in the child between fork and exec and makes one system call, setns, on a descriptor
        // that was opened before the fork; it does not allocate, lock or touch the parent's memory.
        unsafe {
            command.pre_exec(move || {
                let fd = BorrowedFd::borrow_raw(file.as_raw_fd());
                setns(fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            })
        }
    }

    /// A command that will start inside it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn check_name(name: &str) -> Result<(), NetlinkError> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." || name.len() > 255 {
        let invalid = io::Error::new(io::ErrorKind::InvalidInput, "use a plain file name");
        return Err(NetlinkError::io(
            format!("network namespace name {name:?}"),
            invalid,
        ));
    }
    Ok(())
}

/// Makes the directory a shared mount point as iproute2 does, so that names are seen by every mount namespace.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share() == Err(nix::Error::EINVAL) {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(DIRECTORY), DIRECTORY, None::<&str>, bind, None::<&str>)?;
        share()?;
    }
    Ok(())
}

/// Runs a closure on a thread that ends with it: whatever namespace the thread moved to ends with it too.
fn on_new_thread<T: Send, E: Into<io::Error> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result.map_err(Into::into),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
