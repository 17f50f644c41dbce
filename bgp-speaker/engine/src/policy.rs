//! Import and export policy as plain data: the first rule that matches decides.
use ipnet::IpNet;
use isthmus_bgp_packet::Community;

/// What happens to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is used (import) or sent (export).
    Accept,
    /// It is not.
    Reject,
}

/// An ordered list of rules with a verdict for what no rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rules; the first match decides.
    pub rules: Vec<Rule>,
    /// The verdict if none matches.
    pub default: Verdict,
}

impl Policy {
    /// Takes everything.
    #[must_use]
    pub const fn accept() -> Self {
        Self {
            rules: Vec::new(),
            default: Verdict::Accept,
        }
    }

    /// Takes nothing.
    #[must_use]
    pub const fn reject() -> Self {
        Self {
            rules: Vec::new(),
            default: Verdict::Reject,
        }
    }

    /// The verdict on a route with the prefix and the communities.
    pub fn verdict(&self, prefix: &IpNet, communities: impl Iterator<Item = Community> + Clone) -> Verdict {
        let hit = self
            .rules
            .iter()
            .find(|rule| rule.matches(prefix, communities.clone()));
        hit.map_or(self.default, |rule| rule.verdict)
    }
}

/// One rule: both conditions must hold; an empty list is a condition that always holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The prefix lies in one of these ranges.
    pub prefixes: Vec<PrefixRange>,
    /// The route has one of these communities.
    pub communities: Vec<Community>,
    /// What then.
    pub verdict: Verdict,
}

impl Rule {
    fn matches(&self, prefix: &IpNet, mut communities: impl Iterator<Item = Community>) -> bool {
        (self.prefixes.is_empty() || self.prefixes.iter().any(|range| range.contains(prefix)))
            && (self.communities.is_empty() || communities.any(|one| self.communities.contains(&one)))
    }
}

/// All prefixes inside `prefix` whose length is in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixRange {
    /// The covering prefix.
    pub prefix: IpNet,
    /// Shortest length that matches.
    pub min_len: u8,
    /// Longest length that matches.
    pub max_len: u8,
}

impl PrefixRange {
    /// The range of exactly one prefix.
    #[must_use]
    pub fn exactly(prefix: IpNet) -> Self {
        Self {
            prefix,
            min_len: prefix.prefix_len(),
            max_len: prefix.prefix_len(),
        }
    }

    /// The prefix and everything inside it.
    #[must_use]
    pub fn within(prefix: IpNet) -> Self {
        Self {
            prefix,
            min_len: prefix.prefix_len(),
            max_len: prefix.max_prefix_len(),
        }
    }

    /// True if `prefix` lies in the range.
    #[must_use]
    pub fn contains(&self, prefix: &IpNet) -> bool {
        (self.min_len..=self.max_len).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match_decides() {
        let rule = |prefixes: &[PrefixRange], communities: &[Community], verdict| Rule {
            prefixes: prefixes.to_vec(),
            communities: communities.to_vec(),
            verdict,
        };
        let ten = "10.0.0.0/8".parse().unwrap();
        let policy = Policy {
            rules: vec![
                rule(&[], &[Community::BLACKHOLE], Verdict::Reject),
                rule(
                    &[PrefixRange {
                        prefix: ten,
                        min_len: 8,
                        max_len: 24,
                    }],
                    &[],
                    Verdict::Accept,
                ),
            ],
            default: Verdict::Reject,
        };
        for (prefix, communities, expected) in [
            ("10.1.0.0/16", &[][..], Verdict::Accept),
            ("10.1.0.0/25", &[], Verdict::Reject),
            ("11.0.0.0/8", &[], Verdict::Reject),
            ("10.1.0.0/16", &[Community::BLACKHOLE], Verdict::Reject),
            ("2001:db8::/32", &[], Verdict::Reject),
        ] {
            let prefix: IpNet = prefix.parse().unwrap();
            assert_eq!(
                policy.verdict(&prefix, communities.iter().copied()),
                expected,
                "{prefix}"
            );
        }
        assert!(PrefixRange::exactly(ten).contains(&ten));
        assert!(PrefixRange::within(ten).contains(&"10.0.0.1/32".parse().unwrap()));
    }
}
