//! One step towards the plan.
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use crate::{Device, Mac, Route, Rule};

/// One change of the kernel's state. Doing it twice is as good as doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// Make the overlay device, without addresses, down.
    AddDevice(Device),
    /// Delete a device of our name that is something else.
    DeleteDevice(String),
    /// Set the device's MAC address.
    SetMac(String, Mac),
    /// Set the device's MTU.
    SetMtu(String, u32),
    /// Let the device do without ARP and neighbour discovery: every address is behind it.
    SetNoArp(String),
    /// Set the device up.
    SetUp(String),
    /// Add an address to the device.
    AddAddress(String, IpNet),
    /// Take an address from the device.
    DeleteAddress(String, IpNet),
    /// Put a route through the device into our table, replacing one with the same destination.
    PutRoute(IpNet, Route),
    /// Delete one of our routes.
    DeleteRoute(IpNet),
    /// Add a rule.
    AddRule(Rule),
    /// Delete one of our rules.
    DeleteRule(Rule),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |rule: &Rule| if rule.v6 { "IPv6" } else { "IPv4" };
        match self {
            Self::AddDevice(d) => write!(f, "add device {} port {} mtu {}", d.name, d.port, d.mtu),
            Self::DeleteDevice(name) => write!(f, "delete device {name}"),
            Self::SetMac(name, mac) => write!(f, "set {name} address {mac}"),
            Self::SetMtu(name, mtu) => write!(f, "set {name} mtu {mtu}"),
            Self::SetNoArp(name) => write!(f, "set {name} noarp"),
            Self::SetUp(name) => write!(f, "set {name} up"),
            Self::AddAddress(name, net) => write!(f, "add {net} to {name}"),
            Self::DeleteAddress(name, net) => write!(f, "delete {net} from {name}"),
            Self::PutRoute(net, route) => match route.via {
                Some(via) => write!(f, "put route {net} via {via}"),
                None => write!(f, "put route {net}"),
            },
            Self::DeleteRoute(net) => write!(f, "delete route {net}"),
            Self::AddRule(rule) => write!(
                f,
                "add {} rule {} table {}",
                family(rule),
                rule.priority,
                rule.table
            ),
            Self::DeleteRule(rule) => {
                write!(
                    f,
                    "delete {} rule {} table {}",
                    family(rule),
                    rule.priority,
                    rule.table
                )
            }
        }
    }
}
