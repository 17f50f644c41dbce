//! The kernel's network objects over netlink: namespaces, links, addresses, routes, rules, neighbours, sysctls.
//!
//! Every call is synchronous: a request takes tens of microseconds and the kernel answers before `send` returns, so a
//! thread or task of its own buys nothing. One [`Netlink`] handle belongs to one network namespace for ever, the
//! one in which it was opened, so a program can hold handles into many namespaces at once.
//!
//! ```no_run
//! # fn main() -> Result<(), isthmus_netlink::NetlinkError> {
//! use isthmus_netlink::{Netlink, Netns, Veth};
//! let red = Netns::create("red")?;
//! let host = Netlink::open()?;
//! host.add_veth(&Veth::new("to-red", "eth0").peer_in(&red))?;
//! let inside = red.netlink()?;
//! inside.add_address("eth0", "10.0.0.2/24".parse().expect("prefix"))?;
//! inside.set_up("eth0")?;
//! # Ok(()) }
//! ```
#![allow(unsafe_code)] // setns between fork and exec (namespace.rs), AsyncFd (monitor.rs).

mod address;
mod error;
mod link;
mod monitor;
mod namespace;
mod neighbour;
mod route;
mod rule;
mod socket;
pub mod sysctl;

pub use address::Address;
pub use error::NetlinkError;
pub use link::{Link, LinkKind, Mac, Veth, Vxlan};
pub use monitor::{Change, Monitor};
pub use namespace::Netns;
pub use neighbour::Neighbour;
pub use route::{NextHop, Route, RouteKind};
pub use rule::Rule;
pub use socket::Netlink;
