//! What a test needs from the machine.
use std::path::{Path, PathBuf};

/// Something a test cannot do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Uid 0, for namespaces, BPF and mounts.
    Root,
    /// A program and the Debian package that brings it.
    Program {
        /// File name.
        name: &'static str,
        /// Debian package.
        package: &'static str,
    },
    /// A path that must exist, and what it is.
    Path {
        /// Where.
        path: PathBuf,
        /// What it is, and how to get it.
        what: &'static str,
    },
}

impl Need {
    /// `None` when it is there, else why it is not and what to do.
    pub fn missing(&self) -> Option<String> {
        match self {
            Need::Root if nix::unistd::geteuid().is_root() => None,
            Need::Root => Some("it needs root: run it with sudo".into()),
            Need::Program { name, .. } if find_program(name).is_some() => None,
            Need::Program { name, package } => {
                Some(format!("{name} is not installed: apt-get install {package}"))
            }
            Need::Path { path, .. } if path.exists() => None,
            Need::Path { path, what } => Some(format!("{} is missing: {what}", path.display())),
        }
    }
}

/// Whether the machine has all that a test needs; prints why the test is skipped if not.
///
/// ```no_run
/// # use isthmus_testkit::{needs, Need};
/// if !needs("frr_takes_our_routes", &[Need::Root, Need::Program { name: "bgpd", package: "frr" }]) {
///     return;
/// }
/// ```
pub fn needs(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter_map(Need::missing).collect();
    for reason in &missing {
        eprintln!("SKIPPED {test}: {reason}");
    }
    missing.is_empty()
}

/// Where a program is: on PATH, in the system directories, or where Debian keeps FRR's daemons.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/lib/frr"];
    std::env::split_paths(&path)
        .chain(system.map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let need = Need::Program {
            name: "no-such-daemon",
            package: "no-such-package",
        };
        let reason = need.missing().expect("missing");
        assert_eq!(
            reason,
            "no-such-daemon is not installed: apt-get install no-such-package"
        );
        assert!(!needs("example", &[need]));
    }

    #[test]
    fn the_shell_is_found() {
        let shell = Need::Program {
            name: "sh",
            package: "dash",
        };
        assert_eq!(shell.missing(), None);
    }
}
