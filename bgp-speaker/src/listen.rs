//! The sockets on which peers reach us, and the TCP-MD5 keys on them.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Password;
use crate::event::Event;
use crate::socket::{self, SocketError};

/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    events: mpsc::Sender<Event>,
    open: BTreeMap<SocketAddr, Listener>,
    keys: BTreeMap<IpAddr, Password>,
}

#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    /// None yet.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            open: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    /// Listens on exactly these addresses with exactly these keys. If a new address cannot be opened, the old ones stay.
    pub(crate) fn set(
        &mut self,
        addresses: &[SocketAddr],
        keys: BTreeMap<IpAddr, Password>,
    ) -> Result<(), SocketError> {
        let mut fresh = BTreeMap::new();
        for address in addresses {
            if !self.open.contains_key(address) {
                fresh.insert(*address, self.listen(*address)?);
            }
        }
        self.open.retain(|address, _| addresses.contains(address));
        for (address, listener) in &self.open {
            set_keys(*address, listener, &self.keys, &keys)?;
        }
        for (address, listener) in &fresh {
            set_keys(*address, listener, &BTreeMap::new(), &keys)?;
        }
        self.open.append(&mut fresh);
        self.keys = keys;
        Ok(())
    }

    fn listen(&self, address: SocketAddr) -> Result<Listener, SocketError> {
        let other = |source| SocketError::Other {
            what: "listen on",
            address,
            source,
        };
        let socket = Arc::new(TcpListener::from_std(socket::listen(address)?).map_err(other)?);
        let task = tokio::spawn(accept(Arc::clone(&socket), self.events.clone()));
        tracing::info!(%address, "listening for peers");
        Ok(Listener { socket, task })
    }
}

fn set_keys(
    address: SocketAddr,
    listener: &Listener,
    old: &BTreeMap<IpAddr, Password>,
    new: &BTreeMap<IpAddr, Password>,
) -> Result<(), SocketError> {
    let family = |peer: &&IpAddr| peer.is_ipv4() == address.is_ipv4();
    let socket = listener.socket.as_fd();
    for peer in old.keys().filter(family).filter(|peer| !new.contains_key(peer)) {
        socket::set_md5(socket, *peer, None)?;
    }
    for (peer, key) in new.iter().filter(|(peer, _)| family(peer)) {
        if old.get(peer) != Some(key) {
            socket::set_md5(socket, *peer, Some(key))?;
        }
    }
    Ok(())
}

async fn accept(socket: Arc<TcpListener>, events: mpsc::Sender<Event>) {
    loop {
        match socket.accept().await {
            Ok((stream, remote)) => {
                if events.send(Event::Accepted { stream, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
