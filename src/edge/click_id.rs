//! Click ids: unique over workers, nodes and restarts, and telling whose click it was.
//!
//! 27 bytes, big-endian, in unpadded base64url (RFC 4648, section 5): 36 characters of `[A-Za-z0-9_-]`. CAKE's `s1`
//! holds 50, which leaves room for a keyed MAC behind these.
//!
//! ```text
//! 0       6          11         15     19          23     27
//! │ millis │ instance │ sequence │ link │ affiliate │ offer │
//! ```
//!
//! Uniqueness does not hang on the clock: `instance` is 40 random bits drawn when a worker starts, and `sequence`
//! never repeats within a worker before 2³² clicks, by when the time has moved on. A clock that steps backwards
//! changes the first field alone. Two instances are alike with a chance of 2⁻⁴⁰, and would then still have to meet
//! in millisecond and sequence.

use crate::types::{AffiliateId, LinkId, OfferId, UnixMillis};

/// Makes the ids of one worker.
#[derive(Debug)]
pub struct ClickIds {
    instance: u64,
    sequence: u32,
}

/// A click id as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClickId([u8; CHARS]);

impl ClickIds {
    /// `instance` must be random; its low 40 bits are used.
    pub fn new(instance: u64) -> Self {
        Self { instance, sequence: 0 }
    }

    pub fn next(
        &mut self,
        at: UnixMillis,
        link: LinkId,
        affiliate: AffiliateId,
        offer: Option<OfferId>,
    ) -> ClickId {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut bytes = [0; BYTES];
        bytes[..6].copy_from_slice(&at.0.to_be_bytes()[2..]);
        bytes[6..11].copy_from_slice(&self.instance.to_be_bytes()[3..]);
        bytes[11..15].copy_from_slice(&sequence.to_be_bytes());
        bytes[15..19].copy_from_slice(&link.value().to_be_bytes());
        bytes[19..23].copy_from_slice(&affiliate.value().to_be_bytes());
        bytes[23..27].copy_from_slice(&offer.map_or(0, OfferId::value).to_be_bytes());
        ClickId(base64url(&bytes))
    }
}

impl ClickId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// 27 bytes are nine whole groups, so there is no padding to think of.
fn base64url(bytes: &[u8; BYTES]) -> [u8; CHARS] {
    let mut text = [0; CHARS];
    for (group, quad) in bytes.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (index, character) in quad.iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
        }
    }
    text
}

const BYTES: usize = 27;
const CHARS: usize = 36;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn next(ids: &mut ClickIds, millis: i64) -> ClickId {
        let (link, affiliate) = (LinkId::new(301).unwrap(), AffiliateId::new(67890).unwrap());
        ids.next(UnixMillis(millis), link, affiliate, OfferId::new(1042))
    }

    #[test]
    fn well_formed() {
        let id = next(&mut ClickIds::new(u64::MAX), 1_790_000_000_000);
        assert!(id.as_str().len() <= 50);
        assert!(id.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn unique_though_the_clock_stands_still_or_steps_back() {
        let mut seen = HashSet::new();
        for instance in 0..4 {
            let mut ids = ClickIds::new(instance);
            for click in 0..1_000 {
                assert!(seen.insert(next(&mut ids, 1_790_000_000_000 - click / 10)));
            }
        }
    }

    #[test]
    fn base64url_of_known_bytes() {
        let mut bytes = [0; BYTES];
        bytes[..3].copy_from_slice(&[0xfb, 0xff, 0xbf]);
        bytes[3..6].copy_from_slice(b"Man");
        assert!(base64url(&bytes).starts_with(b"-_-_TWFuAAAA"));
    }
}
