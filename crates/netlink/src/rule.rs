//! Routing policy rules: which table is asked, and when.
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::family;
use crate::{Netlink, NetlinkError};

/// A rule that sends packets to a routing table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// True for the IPv6 list, false for IPv4's.
    pub v6: bool,
    /// Its place in the list: lower is asked first.
    pub priority: u32,
    /// The table that is asked.
    pub table: u32,
    /// Only packets from here.
    pub from: Option<IpNet>,
    /// Only packets to here.
    pub to: Option<IpNet>,
    /// Only packets that came in by this link.
    pub input: Option<String>,
    /// Only packets with this firewall mark under this mask.
    pub mark: Option<(u32, u32)>,
    /// Who made it (rtproto number).
    pub protocol: u8,
}

impl Rule {
    /// A rule for all packets of a family.
    pub fn lookup(v6: bool, priority: u32, table: u32) -> Self {
        Self {
            v6,
            priority,
            table,
            from: None,
            to: None,
            input: None,
            mark: None,
            protocol: 0,
        }
    }

    /// Tagged with the rtproto number of its maker.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    fn describe(&self) -> String {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        format!("{family} rule {} table {}", self.priority, self.table)
    }
}

impl Netlink {
    /// All rules of both families that send packets to a table.
    pub fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            for message in self.dump(RouteNetlinkMessage::GetRule(message), "list rules")? {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    rules.extend(read_rule(&message));
                }
            }
        }
        Ok(rules)
    }

    /// Adds a rule; adding it again changes nothing.
    pub fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        match self.change(
            message,
            NLM_F_CREATE | NLM_F_EXCL,
            format!("add {}", rule.describe()),
        ) {
            Err(e) if e.is_exists() => Ok(()),
            other => other,
        }
    }

    /// Deletes a rule; deleting what is not there is no error.
    pub fn delete_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(rule_message(rule));
        match self.change(message, 0, format!("delete {}", rule.describe())) {
            Err(e) if e.is_missing() => Ok(()),
            other => other,
        }
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.header.src_len = rule.from.map_or(0, |net| net.prefix_len());
    message.header.dst_len = rule.to.map_or(0, |net| net.prefix_len());
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.extend(rule.from.map(|net| RuleAttribute::Source(net.network())));
    attributes.extend(rule.to.map(|net| RuleAttribute::Destination(net.network())));
    attributes.extend(rule.input.clone().map(RuleAttribute::Iifname));
    if let Some((mark, mask)) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark));
        attributes.push(RuleAttribute::FwMask(mask));
    }
    if rule.protocol != 0 {
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    }
    message
}

fn read_rule(message: &RuleMessage) -> Option<Rule> {
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let v6 = message.header.family == AddressFamily::Inet6;
    let mut rule = Rule::lookup(v6, 0, message.header.table.into());
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, message.header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, message.header.dst_len).ok(),
            RuleAttribute::Iifname(name) => rule.input = Some(name.clone()),
            RuleAttribute::FwMark(mark) => {
                rule.mark = Some((*mark, rule.mark.map_or(u32::MAX, |(_, mask)| mask)));
            }
            RuleAttribute::FwMask(mask) => rule.mark = rule.mark.map(|(mark, _)| (mark, *mask)),
            RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
            _ => {}
        }
    }
    // The family of addresses is the header's; a rule with an address of the other is not one of ours.
    let fits = |net: &Option<IpNet>| net.is_none_or(|net| family(net.addr()) == message.header.family);
    (fits(&rule.from) && fits(&rule.to)).then_some(rule)
}
