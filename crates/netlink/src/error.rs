//! What can go wrong, in words a user can act on: the object, the kernel's reason, the cure where it is known.
use std::io;

/// A request that the kernel refused, or that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused a request.
    #[error("{action}: {reason}{cure}", reason = reason(*errno, detail), cure = cure_text(*errno, action))]
    Refused {
        /// What was asked, with the object's name: `add link isthmus_vxlan (vxlan)`.
        action: String,
        /// The kernel's error number (positive).
        errno: i32,
        /// The kernel's own words (extended acknowledgement), or empty.
        detail: String,
    },
    /// No object of that name.
    #[error("{kind} {name} does not exist")]
    Missing {
        /// `link`, `network namespace`, …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The netlink socket itself failed.
    #[error("{action}: {source}{cure}", cure = cure_text(source.raw_os_error().unwrap_or(0), action))]
    Io {
        /// What was attempted.
        action: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The kernel answered with something that this library cannot read.
    #[error("the kernel's answer to \"{action}\" is not understood: {reason}")]
    Decode {
        /// What was asked.
        action: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A name that the kernel would not take.
    #[error("interface name {0:?} is not valid: use 1 to 15 characters without '/' or blanks")]
    Name(String),
}

impl NetlinkError {
    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action: action.into(),
            source: source.into(),
        }
    }

    /// The error number, if the operating system gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Missing { .. } => Some(libc::ENODEV),
            Self::Decode { .. } | Self::Name(_) => None,
        }
    }

    /// True if the object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// True if the object is not there (any more).
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL)
        )
    }
}

fn reason(errno: i32, detail: &str) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    // "Operation not permitted (os error 1)" → "Operation not permitted"
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    if detail.is_empty() {
        text
    } else {
        format!("{text} ({detail})")
    }
}

fn cure_text(errno: i32, action: &str) -> String {
    cure(errno, action).map_or_else(String::new, |cure| format!("; {cure}"))
}

/// What to do about it, where that is known.
fn cure(errno: i32, action: &str) -> Option<&'static str> {
    let vxlan = action.contains("(vxlan)");
    match errno {
        libc::EPERM | libc::EACCES => Some("run as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        libc::EOPNOTSUPP if vxlan => Some(
            "this kernel has no VXLAN: load the module (modprobe vxlan) or use a kernel with CONFIG_VXLAN",
        ),
        libc::EOPNOTSUPP if action.contains("(veth)") => {
            Some("this kernel has no veth: load the module (modprobe veth) or use a kernel with CONFIG_VETH")
        }
        libc::EOPNOTSUPP if action.contains("(dummy)") => {
            Some("this kernel has no dummy devices: use a kernel with CONFIG_DUMMY")
        }
        libc::EEXIST if vxlan => Some(
            "another VXLAN device already collects metadata on this UDP port: find it with `ip -d link show type vxlan`, \
             then remove it or choose another port",
        ),
        libc::EEXIST if action.starts_with("create network namespace") => {
            Some("a namespace of this name exists: delete it (ip netns del) or choose another name")
        }
        libc::EADDRINUSE => Some("something else has this UDP port open: find it with `ss -ulpn`"),
        libc::ENETUNREACH => Some("the gateway is not on a link that is up: add the address or use onlink"),
        libc::ENETDOWN => Some("set the link up first"),
        libc::EBUSY => Some("something still uses it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_object_cause_and_cure() {
        let refused = |action: &str, errno| {
            NetlinkError::Refused {
                action: action.into(),
                errno,
                detail: String::new(),
            }
            .to_string()
        };
        assert_eq!(
            refused("add link x0 (vxlan)", libc::EOPNOTSUPP),
            "add link x0 (vxlan): Operation not supported; this kernel has no VXLAN: load the module (modprobe vxlan) \
             or use a kernel with CONFIG_VXLAN"
        );
        assert!(refused("add link x0 (vxlan)", libc::EPERM).contains("run as root"));
        assert!(refused("add link x0 (vxlan)", libc::EEXIST).contains("ip -d link show type vxlan"));
    }
}
