//! Alias tables: drawing one of n entries in proportion to weights with one random number and two loads.
//!
//! Walker's method (A. J. Walker, 1977) with Vose's linear-time construction (M. D. Vose, 1991), in integers: the
//! share of every entry is exact to 2⁻³² of a slot, and no floating point can differ between machines.

/// One slot: keeps its own index below `threshold`, else hands over to `alias`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// In units of 2⁻³².
    pub threshold: u32,
    pub alias: u32,
}

/// Builds the slots of a table in O(n). Weights are positive; their number is below 2³².
pub(super) fn build(weights: &[u8]) -> Vec<Slot> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut slots: Vec<Slot> =
        (0..weights.len()).map(|index| Slot { threshold: u32::MAX, alias: index as u32 }).collect();
    // A slot's fair content is `total`; entry i has `weight × count` to put somewhere.
    let mut content: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * count).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&index| content[index] < total);
    while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
        small.pop();
        // content < total, so this is below 2³².
        let threshold = (u128::from(content[poor]) << 32) / u128::from(total);
        slots[poor] = Slot { threshold: threshold as u32, alias: rich as u32 };
        content[rich] -= total - content[poor];
        if content[rich] < total {
            large.pop();
            small.push(rich);
        }
    }
    // What is left is full to the brim: integers leave no rounding crumbs, and a full slot is its own alias.
    slots
}

/// Which slot a draw falls on, and where inside it, in units of 2⁻³². Slots lie side by side over the range of draws,
/// so draws that are evenly spread are so inside every slot, too.
#[inline]
pub(super) fn slot_of(draw: u64, count: u32) -> (u32, u32) {
    let product = u128::from(draw) * u128::from(count);
    ((product >> 64) as u32, (product >> 32) as u32)
}

/// A draw scaled to `0..limit`.
#[inline]
pub(super) fn below(limit: u64, draw: u64) -> u64 {
    ((u128::from(draw) * u128::from(limit)) >> 64) as u64
}

/// An independent number from a draw: SplitMix64's output function (Steele, Lea and Flood, 2014) on the draw plus
/// the n-th multiple of the golden gamma.
#[inline]
pub(super) fn expand(draw: u64, n: u64) -> u64 {
    let mut z = draw.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of each entry, in units of 2⁻³² of a slot, read off the slots.
    fn shares(weights: &[u8]) -> Vec<u128> {
        let slots = build(weights);
        let mut shares = vec![0; weights.len()];
        for (index, slot) in slots.iter().enumerate() {
            let kept = if slot.alias == index as u32 { 1 << 32 } else { u128::from(slot.threshold) };
            shares[index] += kept;
            shares[slot.alias as usize] += (1 << 32) - kept;
        }
        shares
    }

    #[test]
    fn shares_are_exact_to_one_unit_per_slot() {
        let cases: Vec<Vec<u8>> = vec![
            vec![1],
            vec![60, 30, 10],
            vec![100, 1],
            vec![1; 7],
            (1..=100).collect(),
            (0..500).map(|index| (index * 37 % 100 + 1) as u8).collect(),
        ];
        for weights in cases {
            let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            let count = weights.len() as u128;
            let exact = |weight: u8| ((u128::from(weight) * count) << 32) / total;
            for (index, share) in shares(&weights).into_iter().enumerate() {
                let error = share.abs_diff(exact(weights[index]));
                assert!(error <= count, "entry {index} of {weights:?}: {error} units off");
            }
        }
    }

    #[test]
    fn slots_are_equally_wide() {
        assert_eq!(slot_of(0, 3).0, 0);
        assert_eq!(slot_of(u64::MAX, 3).0, 2);
        assert_eq!(slot_of(1 << 63, 2), (1, 0));
        assert_eq!(slot_of((1 << 63) | (1 << 62), 2), (1, 1 << 31));
    }
}
