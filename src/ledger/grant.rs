//! How much of what is left one node gets at once.

/// Leases shrink as the cap fills: no node gets more than half of an even share of what is left, so that the others
/// find something, and a node that dies takes little with it. The last clicks go one by one.
pub(super) fn share(wants: u64, free: u64, nodes: u64) -> u64 {
    if free == 0 { 0 } else { wants.min((free / nodes.max(1).saturating_mul(2)).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_even_share_and_never_more_than_is_left() {
        for (wants, free, nodes, granted) in [
            (100, 10_000, 10, 100),
            (100, 1_000, 10, 50),
            (100, 19, 10, 1),
            (100, 1, 10, 1),
            (100, 0, 10, 0),
            (0, 10_000, 10, 0),
            (7, 10_000, 0, 7),
            (u64::MAX, u64::MAX, u64::MAX, 1),
        ] {
            assert_eq!(share(wants, free, nodes), granted, "{wants} of {free} for {nodes}");
        }
    }
}
