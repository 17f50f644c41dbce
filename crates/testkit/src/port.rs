//! Ports that nobody uses.
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// A TCP port that was free on loopback just now. Another process may take it before you do: bind soon.
pub fn free_tcp_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|a| a.port())
}

/// A UDP port that was free on loopback just now.
pub fn free_udp_port() -> io::Result<u16> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|a| a.port())
}
