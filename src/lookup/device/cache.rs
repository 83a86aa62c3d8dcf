//! Devices of the User-Agents seen lately, so that a click seldom pays for a parse.
//!
//! Assumptions, each with a test:
//! - One worker, one cache: nothing is shared, nothing is locked.
//! - The answer is always that of [`device`](super::device()). Keys are compared in full, each header apart and
//!   an absent one distinct from an empty one; the hash only chooses where to look.
//! - Memory is fixed when the cache is made. A key longer than [`KEY_BYTES_MAX`] is parsed each time.
//! - A flood of random User-Agents costs a parse each and nothing more: an entry has [`WAYS`] places, and a newcomer
//!   takes the first of them that was not used since the hand last passed (the clock algorithm, on four places). There is no
//!   list to keep, nothing to sweep, and what people use again survives the flood for longest.

use super::{Hints, device};
use crate::types::Device;

/// A bounded cache in front of [`device`](super::device()), for one worker.
pub struct DeviceCache {
    seed: u64,
    /// `WAYS` neighbours form a set; their number is a power of two.
    slots: Box<[Slot]>,
    /// `KEY_BYTES_MAX` bytes for each slot.
    keys: Box<[u8]>,
    /// For each set, the place where the next newcomer begins to look.
    hands: Box<[u8]>,
}

impl DeviceCache {
    /// An empty cache. `seed` is random and secret, or a sender could aim User-Agents at one set.
    pub fn new(seed: u64) -> DeviceCache {
        DeviceCache::with_entries(seed, ENTRIES)
    }

    /// An empty cache with room for `entries`, rounded up to a power of two.
    pub fn with_entries(seed: u64, entries: usize) -> DeviceCache {
        let entries = entries.max(WAYS).next_power_of_two();
        DeviceCache {
            seed,
            slots: vec![Slot::EMPTY; entries].into_boxed_slice(),
            keys: vec![0; entries * KEY_BYTES_MAX].into_boxed_slice(),
            hands: vec![0; entries / WAYS].into_boxed_slice(),
        }
    }

    /// The device that the headers tell: that of [`device`](super::device()), remembered.
    pub fn device(&mut self, hints: &Hints<'_>) -> Device {
        let key = Key::of(hints);
        if key.bytes() > KEY_BYTES_MAX {
            return device(hints);
        }
        let hash = key.hash(self.seed);
        // The low bits are stored with the slot; the set is chosen by the high ones.
        let set = (hash >> 32) as usize & (self.hands.len() - 1);
        for place in set * WAYS..(set + 1) * WAYS {
            if let Some(device) = self.found(place, hash as u32, &key) {
                return device;
            }
        }
        let device = device(hints);
        let place = self.freed(set);
        self.slots[place] =
            Slot { tag: hash as u32, lengths: key.lengths(), used: false, device: Some(device) };
        key.write(&mut self.keys[place * KEY_BYTES_MAX..]);
        device
    }

    fn found(&mut self, place: usize, tag: u32, key: &Key<'_>) -> Option<Device> {
        let slot = &mut self.slots[place];
        let device = slot.device?;
        if slot.tag != tag || slot.lengths != key.lengths() {
            return None;
        }
        if !key.is_written(&self.keys[place * KEY_BYTES_MAX..]) {
            return None;
        }
        slot.used = true;
        Some(device)
    }

    /// A place of the set for a newcomer: after one round at most, as each step takes a mark away.
    fn freed(&mut self, set: usize) -> usize {
        loop {
            let hand = usize::from(self.hands[set]);
            self.hands[set] = ((hand + 1) % WAYS) as u8;
            let place = set * WAYS + hand;
            if !std::mem::take(&mut self.slots[place].used) {
                return place;
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    lengths: [u16; PARTS],
    used: bool,
    device: Option<Device>,
}

impl Slot {
    const EMPTY: Slot = Slot { tag: 0, lengths: [0; PARTS], used: false, device: None };
}

/// The whole input. Two inputs are the same when their parts have the same lengths and the same bytes.
struct Key<'a>([Option<&'a str>; PARTS]);

impl<'a> Key<'a> {
    fn of(hints: &Hints<'a>) -> Key<'a> {
        Key([hints.user_agent, hints.ch_mobile, hints.ch_platform])
    }

    fn bytes(&self) -> usize {
        self.present().map(<[u8]>::len).sum()
    }

    fn present(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().flatten().map(|part| part.as_bytes())
    }

    /// Exact for every key that is short enough to be kept.
    fn lengths(&self) -> [u16; PARTS] {
        self.0.map(|part| part.map_or(ABSENT, |part| part.len() as u16))
    }

    fn write(&self, to: &mut [u8]) {
        let mut at = 0;
        for part in self.present() {
            to[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    /// Whether `from` begins with this key. The lengths were compared before.
    fn is_written(&self, from: &[u8]) -> bool {
        let mut at = 0;
        self.present().all(|part| {
            let same = from[at..at + part.len()] == *part;
            at += part.len();
            same
        })
    }

    /// Sixteen bytes at a time through a 128-bit product, in the manner of wyhash. It need not resist an
    /// analyst: whoever finds collisions wins a parse, never a wrong answer.
    fn hash(&self, seed: u64) -> u64 {
        let second = folded(seed ^ SPREAD_1, SPREAD_2);
        self.present().fold(seed, |mut hash, part| {
            let (blocks, _) = part.as_chunks::<16>();
            for block in blocks {
                let [low, high] = halves(block);
                hash = folded(low ^ hash, high ^ second);
            }
            let [low, high] = ending(part);
            folded(low ^ hash, high ^ second ^ part.len() as u64)
        })
    }
}

fn halves(block: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(*block);
    [number as u64, (number >> 64) as u64]
}

/// The last sixteen bytes, or all of a shorter text: read in overlapping pieces of fixed size, since copying a
/// piece of variable size costs a call.
fn ending(text: &[u8]) -> [u64; 2] {
    if let Some(block) = text.last_chunk::<16>() {
        return halves(block);
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        return [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()];
    }
    // At most three bytes: all of them, though one may count twice; the length tells which.
    match text {
        [] => [0, 0],
        [first, .., last] => [(*first).into(), u64::from(text[text.len() / 2]) << 8 | u64::from(*last)],
        [only] => [(*only).into(), 0],
    }
}

fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// Frozen User-Agents are few: some thousands make nearly all of a network's clicks. About 2 MiB for each worker.
const ENTRIES: usize = 4096;

/// Places of a set.
const WAYS: usize = 4;

/// People's User-Agents with their hints are shorter, but for some in-app browsers. Longer ones would let a sender
/// fill memory.
const KEY_BYTES_MAX: usize = 512;

/// User-Agent and two hints.
const PARTS: usize = 3;

/// The length of a header that was not sent; no kept key is as long.
const ABSENT: u16 = u16::MAX;

const SPREAD_1: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_2: u64 = 0xd6e8_feb8_6659_fd93;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent(user_agent: &str) -> Hints<'_> {
        Hints { user_agent: Some(user_agent), ..Hints::default() }
    }

    fn kept(cache: &DeviceCache) -> usize {
        cache.slots.iter().filter(|slot| slot.device.is_some()).count()
    }

    fn holds(cache: &DeviceCache, hints: &Hints<'_>) -> bool {
        let key = Key::of(hints);
        (0..cache.slots.len()).any(|place| {
            let slot = &cache.slots[place];
            slot.device.is_some()
                && slot.lengths == key.lengths()
                && key.is_written(&cache.keys[place * KEY_BYTES_MAX..])
        })
    }

    #[test]
    fn a_flood_fills_it_and_no_more() {
        let mut cache = DeviceCache::with_entries(7, 64);
        let (slots, keys) = (cache.slots.len(), cache.keys.len());
        for number in 0..1000 {
            cache.device(&agent(&format!("Mozilla/5.0 (X11; Linux x86_64) Flood/{number}")));
        }
        assert_eq!(kept(&cache), 64);
        assert_eq!((cache.slots.len(), cache.keys.len()), (slots, keys));
    }

    #[test]
    fn what_is_used_again_outlives_a_flood() {
        let mut cache = DeviceCache::with_entries(7, 4);
        let regular = agent("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Regular");
        cache.device(&regular);
        for number in 0..100 {
            cache.device(&regular);
            cache.device(&agent(&format!("Flood/{number}")));
            assert!(holds(&cache, &regular), "evicted by the flood's number {number}");
        }
    }

    #[test]
    fn long_keys_are_not_kept() {
        let mut cache = DeviceCache::with_entries(7, 64);
        let longest = "x".repeat(KEY_BYTES_MAX);
        let longer = "x".repeat(KEY_BYTES_MAX + 1);
        cache.device(&agent(&longer));
        cache.device(&Hints { user_agent: Some(&longest), ch_mobile: Some("?0"), ch_platform: None });
        assert_eq!(kept(&cache), 0);
        cache.device(&agent(&longest));
        assert_eq!(kept(&cache), 1);
    }

    #[test]
    fn the_same_bytes_in_other_headers_are_another_key() {
        let mut cache = DeviceCache::with_entries(7, 64);
        let inputs = [
            Hints::default(),
            Hints { user_agent: Some(""), ..Hints::default() },
            Hints { user_agent: Some("?1"), ..Hints::default() },
            Hints { ch_mobile: Some("?1"), ..Hints::default() },
            Hints { ch_platform: Some("?1"), ..Hints::default() },
            Hints { ch_mobile: Some("?1"), ch_platform: Some(""), ..Hints::default() },
        ];
        for (count, hints) in inputs.iter().enumerate() {
            assert_eq!(kept(&cache), count);
            assert_eq!(cache.device(hints), device(hints));
        }
        assert_eq!(kept(&cache), inputs.len());
    }

    #[test]
    fn the_seed_decides_the_place() {
        let hints = agent("Mozilla/5.0 (Linux; Android 10; K) Chrome/146.0.0.0 Mobile Safari/537.36");
        assert_ne!(Key::of(&hints).hash(1), Key::of(&hints).hash(2));
    }

    proptest! {
        #[test]
        fn equals_the_uncached(
            seed: u64,
            clicks in prop::collection::vec((0..AGENTS.len(), 0..MOBILE.len(), 0..PLATFORM.len()), 1..200),
        ) {
            let mut cache = DeviceCache::with_entries(seed, 8);
            for (agent, mobile, platform) in clicks {
                let hints =
                    Hints { user_agent: AGENTS[agent], ch_mobile: MOBILE[mobile], ch_platform: PLATFORM[platform] };
                prop_assert_eq!(cache.device(&hints), device(&hints));
                prop_assert!(kept(&cache) <= 8);
            }
        }

        #[test]
        fn equals_the_uncached_on_anything(
            seed: u64,
            texts in prop::collection::vec(prop::option::of(".{0,40}"), 3..60),
        ) {
            let mut cache = DeviceCache::with_entries(seed, 8);
            for three in texts.windows(3) {
                let hints = Hints {
                    user_agent: three[0].as_deref(),
                    ch_mobile: three[1].as_deref(),
                    ch_platform: three[2].as_deref(),
                };
                prop_assert_eq!(cache.device(&hints), device(&hints));
            }
        }
    }

    const AGENTS: &[Option<&str>] = &[
        None,
        Some(""),
        Some("curl/8.11.1"),
        Some(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Mobile Safari/537.36",
        ),
        Some(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
        ),
        Some(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
        ),
        Some(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
        ),
        Some("Mozilla/5.0 (PlayStation; PlayStation 5/9.00) AppleWebKit/605.1.15 (KHTML, like Gecko)"),
    ];
    const MOBILE: &[Option<&str>] = &[None, Some("?0"), Some("?1"), Some("1")];
    const PLATFORM: &[Option<&str>] = &[None, Some("\"Android\""), Some("\"Windows\""), Some("\"Fuchsia\"")];
}
