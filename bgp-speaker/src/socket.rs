//! TCP sockets as BGP wants them: TTL, TCP-MD5, source address, no Nagle.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};

use crate::config::Password;

/// What the sockets of one peer have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerSocket {
    /// Source address of our connections, if fixed.
    pub(crate) local: Option<IpAddr>,
    /// TTL of our packets: 1 keeps a single-hop session on its link.
    pub(crate) ttl: u8,
    /// TCP-MD5 key.
    pub(crate) password: Option<Password>,
}

/// A socket that could not be made the way it is wanted; the text names cause and cure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Somebody else has the port.
    #[error(
        "port {port} of {address} is in use: another BGP daemon listens there (`ss -ltnp sport = :{port}` shows which); stop it or choose another listen.port"
    )]
    PortInUse {
        /// Where we wanted to listen.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Ports below 1024 need a privilege.
    #[error(
        "port {port} of {address} needs the capability CAP_NET_BIND_SERVICE: run as root, or choose a listen.port above 1023"
    )]
    Privileged {
        /// Where we wanted to listen.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Not one of our addresses.
    #[error("{0} is not an address of this machine: give one of its own, or leave it out")]
    NotOurs(IpAddr),
    /// The kernel has no TCP-MD5.
    #[error(
        "this kernel cannot do TCP-MD5 (CONFIG_TCP_MD5SIG is off), which the password of peer {0} needs: use a kernel with it, or remove the password on both sides"
    )]
    NoMd5(IpAddr),
    /// Nobody listens there.
    #[error("{0} refuses connections: does a BGP daemon listen there?")]
    Refused(SocketAddr),
    /// No route.
    #[error("{0} cannot be reached: is the link up, and is there a route to it?")]
    Unreachable(SocketAddr),
    /// Nothing answers.
    #[error("{0} does not answer: is it up, does a filter drop the packets, are the TCP-MD5 keys the same?")]
    Silent(SocketAddr),
    /// Anything else.
    #[error("cannot {what} {address}: {source}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a connection failed, in words.
pub(crate) fn dial_error(remote: SocketAddr, source: io::Error) -> SocketError {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => SocketError::Refused(remote),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            SocketError::Unreachable(remote)
        }
        io::ErrorKind::TimedOut => SocketError::Silent(remote),
        _ => SocketError::Other {
            what: "connect to",
            address: remote,
            source,
        },
    }
}

/// A socket that listens on `address`; IPv6 sockets take IPv6 only, so that every family has its own.
pub(crate) fn listen(address: SocketAddr) -> Result<std::net::TcpListener, SocketError> {
    let build = || -> io::Result<Socket> {
        let socket = new_socket(address)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // The port of a speaker that was just killed must be free at once.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        Ok(socket)
    };
    build().map(Into::into).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::PortInUse {
            address: address.ip(),
            port: address.port(),
        },
        io::ErrorKind::PermissionDenied => SocketError::Privileged {
            address: address.ip(),
            port: address.port(),
        },
        io::ErrorKind::AddrNotAvailable => SocketError::NotOurs(address.ip()),
        _ => SocketError::Other {
            what: "listen on",
            address,
            source: error,
        },
    })
}

/// A socket whose connection to `remote` is under way: it is writable when the connection is up or has failed.
pub(crate) fn dial(remote: SocketAddr, peer: &PeerSocket) -> Result<std::net::TcpStream, SocketError> {
    let other = |source| dial_error(remote, source);
    let socket = new_socket(remote).map_err(other)?;
    if let Some(password) = &peer.password {
        set_md5(socket.as_fd(), remote.ip(), Some(password))?;
    }
    set_ttl(socket.as_fd(), remote, peer.ttl).map_err(other)?;
    if let Some(local) = peer.local {
        let bound = socket.bind(&SocketAddr::new(local, 0).into());
        bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => SocketError::NotOurs(local),
            _ => other(error),
        })?;
    }
    match socket.connect(&remote.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(other(error)),
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // A keepalive or a single withdrawal must not wait for an acknowledgement (Nagle).
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Prepares a connection that was accepted.
pub(crate) fn prepare_accepted(socket: BorrowedFd<'_>, remote: SocketAddr, ttl: u8) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    set_ttl(socket, remote, ttl)
}

fn set_ttl(socket: BorrowedFd<'_>, remote: SocketAddr, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    match remote {
        SocketAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl)),
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct TcpMd5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: u32,
    key: [u8; Password::MAX],
}

/// Sets the TCP-MD5 key (RFC 2385) for one peer on a listening or connecting socket, or removes it.
pub(crate) fn set_md5(
    socket: BorrowedFd<'_>,
    peer: IpAddr,
    password: Option<&Password>,
) -> Result<(), SocketError> {
    let bytes = password.map_or(&[][..], Password::bytes);
    let mut key = [0; Password::MAX];
    key[..bytes.len()].copy_from_slice(bytes);
    let signature = TcpMd5Sig {
        address: SockAddr::from(SocketAddr::new(peer, 0)).as_storage(),
        flags: 0,
        prefix_len: 0,
        key_len: u16::try_from(bytes.len()).unwrap_or_default(),
        ifindex: 0,
        key,
    };
    match set_option(socket, &signature) {
        Ok(()) => Ok(()),
        // Removing a key that was never there.
        Err(error) if password.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Err(SocketError::NoMd5(peer)),
        Err(source) => Err(SocketError::Other {
            what: "set the TCP-MD5 key for",
            address: SocketAddr::new(peer, 0),
            source,
        }),
    }
}

#[expect(unsafe_code, reason = "no safe wrapper of TCP_MD5SIG exists")]
fn set_option(socket: BorrowedFd<'_>, signature: &TcpMd5Sig) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<TcpMd5Sig>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the pointer and the size are those of one live
    // value whose layout is the kernel's.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            std::ptr::from_ref(signature).cast(),
            size,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<TcpMd5Sig>(), 216);
        assert_eq!(std::mem::offset_of!(TcpMd5Sig, key), 136);
    }

    #[test]
    fn a_port_in_use_is_named_with_its_cure() {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = first.local_addr().expect("bound");
        let error = listen(address).expect_err("in use").to_string();
        assert!(
            error.contains(&format!("port {} of 127.0.0.1 is in use", address.port())),
            "{error}"
        );
        assert!(error.contains("choose another listen.port"), "{error}");
    }

    #[test]
    fn a_foreign_source_address_is_named() {
        let peer = PeerSocket {
            local: Some("192.0.2.1".parse().expect("an address")),
            ttl: 1,
            password: None,
        };
        let error = dial("127.0.0.1:179".parse().expect("an address"), &peer).expect_err("not ours");
        assert!(
            error
                .to_string()
                .starts_with("192.0.2.1 is not an address of this machine"),
            "{error}"
        );
    }
}
