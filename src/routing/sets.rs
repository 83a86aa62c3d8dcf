//! Sets that a condition compares a click with. Built once, asked once per click, so all are sorted and searched
//! by bisection.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Values of an ordered type: regions, system numbers, languages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortedSet<T>(Box<[T]>);

impl<T: Ord> SortedSet<T> {
    pub fn contains(&self, value: &T) -> bool {
        self.0.binary_search(value).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl<T: Ord> FromIterator<T> for SortedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values: Vec<T> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }
}

/// Exact strings: sub ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextSet(Box<[Box<str>]>);

impl TextSet {
    pub fn new<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Self {
        let mut values: Vec<Box<str>> = values.into_iter().map(|value| value.as_ref().into()).collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }

    pub fn contains(&self, value: &str) -> bool {
        self.0.binary_search_by(|member| (**member).cmp(value)).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|member| &**member)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.0) + self.iter().map(str::len).sum::<usize>()
    }
}

/// Names compared without regard to ASCII case: cities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameSet(TextSet);

impl NameSet {
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self(TextSet::new(names.into_iter().map(|name| name.as_ref().to_ascii_lowercase())))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.0.binary_search_by(|member| cmp_lowercase(member, name)).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Host names. `example.com` is that host; `*.example.com` is every host below it, and not itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostSet {
    exact: NameSet,
    /// The part behind `*.`.
    below: NameSet,
}

impl HostSet {
    /// Every pattern must have passed [`is_host_pattern`].
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let (below, exact): (Vec<S>, Vec<S>) =
            patterns.into_iter().partition(|pattern| pattern.as_ref().starts_with("*."));
        Self {
            exact: NameSet::new(exact),
            below: NameSet::new(below.iter().map(|pattern| &pattern.as_ref()["*.".len()..])),
        }
    }

    pub fn contains(&self, host: &str) -> bool {
        if self.exact.contains(host) {
            return true;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.below.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    pub fn iter(&self) -> impl Iterator<Item = String> {
        let below = self.below.iter().map(|parent| format!("*.{parent}"));
        self.exact.iter().map(str::to_owned).chain(below)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.exact.heap_bytes() + self.below.heap_bytes()
    }
}

/// Reads a member of a [`NetSet`]: a network, or a single address.
pub fn parse_net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether a text can stand in a [`HostSet`]: a host name in ASCII, optionally behind `*.`.
pub fn is_host_pattern(text: &str) -> bool {
    is_host_name(text.strip_prefix("*.").unwrap_or(text))
}

/// Whether a text is a host name in ASCII: labels of 1 to 63 letters, digits, hyphens or underscores.
pub(super) fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// Networks, merged into ranges. IPv4 and IPv6 are apart: `::/0` holds no IPv4 address. IPv4-mapped networks
/// (`::ffff:192.0.2.0/120`) are IPv4, as the addresses of clicks are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
    /// As they were written, to be shown.
    written: Box<[IpNet]>,
}

impl NetSet {
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut written: Vec<IpNet> = nets.into_iter().collect();
        written.sort_unstable();
        written.dedup();
        for net in &written {
            match unmapped(*net) {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Self { v4: merged(v4), v6: merged(v6), written: written.into() }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => in_ranges(&self.v4, u32::from(address)),
            IpAddr::V6(address) => in_ranges(&self.v6, u128::from(address)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.written.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.v4) + size_of_val(&*self.v6) + size_of_val(&*self.written)
    }
}

/// Compares a lower-case member with a name in any case, as if the name were lower-case.
fn cmp_lowercase(member: &str, name: &str) -> Ordering {
    member.bytes().cmp(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_PREFIX_BITS));
    v4.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(net, IpNet::V4)
}

/// Sorted by start, overlaps joined, so that at most one range can hold a value.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into()
}

fn in_ranges<T: Copy + Ord>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= value);
    after > 0 && value <= ranges[after - 1].1
}

/// `::ffff:0:0/96` holds the IPv4-mapped addresses.
const MAPPED_PREFIX_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_sets_hold_whatever_order_they_came_in() {
        let set: SortedSet<u32> = [64497, 64496, 64498, 64496].into_iter().collect();
        assert_eq!(set.iter().count(), 3);
        assert!(set.contains(&64496) && set.contains(&64498) && !set.contains(&1));
    }

    #[test]
    fn names_ignore_ascii_case() {
        let set = NameSet::new(["New York", "Zürich", "berlin"]);
        assert!(set.contains("new york") && set.contains("BERLIN") && set.contains("Zürich"));
        assert!(!set.contains("York") && !set.contains("ZÜRICH"));
    }

    #[test]
    fn hosts_and_what_is_below_them() {
        let set = HostSet::new(["example.com", "*.shop.example"]);
        assert!(
            set.contains("EXAMPLE.com") && set.contains("a.shop.example") && set.contains("a.b.shop.example")
        );
        for host in ["www.example.com", "shop.example", "notshop.example", "", "."] {
            assert!(!set.contains(host), "{host:?}");
        }
    }

    #[test]
    fn host_patterns() {
        for good in ["example.com", "*.example.com", "xn--bcher-kva.example", "a_b.example"] {
            assert!(is_host_pattern(good), "{good:?}");
        }
        for bad in ["", "*.", "*", "a..b", ".a", "a.", "https://a.b", "a/b", "bücher.example", "a b"] {
            assert!(!is_host_pattern(bad), "{bad:?}");
        }
    }

    #[test]
    fn networks() {
        let set = NetSet::new(
            ["::ffff:198.51.100.0/120", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"]
                .map(|net| net.parse().unwrap()),
        );
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "198.51.100.9"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "2001:db9::",
            "::ffff:10.0.0.1",
            "198.51.101.0",
        ] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
    }
}
