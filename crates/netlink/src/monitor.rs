//! What changes in a namespace, as it changes: so that a daemon mends what others break.
use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::socket::messages;
use crate::{NetlinkError, Netns};

/// The kernel's multicast groups for links, addresses, routes and rules of both families (rtnetlink.h RTNLGRP_*).
const GROUPS: [u32; 7] = [1, 5, 9, 7, 11, 8, 19];

/// What kind of object changed. The details are in the next dump: a change only says that one is worthwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A link came, went or changed.
    Link,
    /// An address came or went.
    Address,
    /// A route came or went.
    Route {
        /// Its table.
        table: u32,
        /// Who made it (rtproto number).
        protocol: u8,
    },
    /// A rule came or went.
    Rule,
    /// More changed than the socket could hold: look at everything.
    Everything,
}

/// A stream of changes.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
}

impl Monitor {
    /// Listens in the namespace of the calling thread. Must be called within a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::on(listen())
    }

    /// Listens in another namespace. Must be called within a tokio runtime.
    pub fn open_in(namespace: &Netns) -> Result<Self, NetlinkError> {
        Self::on(namespace.run(listen)?)
    }

    fn on(socket: io::Result<Socket>) -> Result<Self, NetlinkError> {
        // SAFETY: `Socket` owns its descriptor, never changes it, and closes it only when it is dropped.
        let register = |socket| unsafe { AsyncFd::register(socket) }.map_err(io::Error::from);
        let socket = socket.and_then(register);
        let socket = socket.map_err(|e| NetlinkError::io("listen to network changes", e))?;
        Ok(Self { socket })
    }

    /// The next changes; never empty.
    pub async fn next(&mut self) -> Result<Vec<Change>, NetlinkError> {
        loop {
            let changes = self
                .read()
                .await
                .map_err(|e| NetlinkError::io("read network changes", e))?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    async fn read(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| socket.get_ref().recv_from_full()) {
                Ok(Ok((datagram, _))) => return Ok(messages(&datagram).filter_map(read_change).collect()),
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(vec![Change::Everything]),
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
}

fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn read_change(message: &[u8]) -> Option<Change> {
    use RouteNetlinkMessage as M;
    let NetlinkPayload::InnerMessage(message) = NetlinkMessage::<M>::deserialize(message).ok()?.payload
    else {
        return None;
    };
    match message {
        M::NewLink(_) | M::DelLink(_) => Some(Change::Link),
        M::NewAddress(_) | M::DelAddress(_) => Some(Change::Address),
        M::NewRule(_) | M::DelRule(_) => Some(Change::Rule),
        M::NewRoute(message) | M::DelRoute(message) => {
            let route = crate::route::read_route(&message)?;
            Some(Change::Route {
                table: route.table,
                protocol: route.protocol,
            })
        }
        _ => None,
    }
}
