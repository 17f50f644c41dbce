//! The kernel's network objects over netlink: namespaces, links, routes, rules, neighbours.
