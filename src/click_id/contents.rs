//! The fields of a click id, as bytes and as text. Nothing here says that an id is genuine: that is `keys.rs`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::types::{AffiliateId, LinkId, OfferId, UnixMillis};

/// A click id as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClickId([u8; CHARS]);

/// What a click id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Of the click. What does not fit is the nearest moment that does.
    pub at: UnixMillis,
    pub node: NodeIdentity,
    pub worker: WorkerIndex,
    /// Less than [`SEQUENCES`].
    pub sequence: u32,
    pub link: LinkId,
    pub affiliate: AffiliateId,
    /// `None`: the click went to no offer.
    pub offer: Option<OfferId>,
}

/// Which process made an id: 48 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeIdentity(u64);

/// Which thread of the process: less than [`WORKERS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerIndex(u16);

/// A text that is no click id, whoever signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it has {0} bytes, and a click id has {CHARS}")]
    Length(usize),
    #[error("it is not base64url: A-Z a-z 0-9 - _, and nothing left over in the last character")]
    Text,
    #[error("it is of version {0}, and this smartlink knows version {VERSION}")]
    Version(u8),
    #[error("its link or its affiliate is 0, which names none")]
    NoSuch,
}

impl Contents {
    /// The bytes that are signed.
    pub(super) fn to_bytes(self) -> [u8; SIGNED_BYTES] {
        let moment = self.at.0.clamp(0, MOMENT_MAX).unsigned_abs();
        let head = u64::from(VERSION) << MOMENT_BITS | moment;
        let count = u64::from(self.worker.0) << SEQUENCE_BITS | u64::from(self.sequence & (SEQUENCES - 1));
        let mut bytes = [0; SIGNED_BYTES];
        bytes[..6].copy_from_slice(&head.to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&self.node.0.to_be_bytes()[2..]);
        bytes[12..17].copy_from_slice(&count.to_be_bytes()[3..]);
        bytes[17..21].copy_from_slice(&self.link.value().to_be_bytes());
        bytes[21..25].copy_from_slice(&self.affiliate.value().to_be_bytes());
        bytes[25..].copy_from_slice(&self.offer.map_or(0, OfferId::value).to_be_bytes());
        bytes
    }

    /// Reads an id without asking who signed it: for a person who looks into one. A postback is to ask
    /// [`ClickIdKeys::verify`](super::ClickIdKeys::verify).
    pub fn read_unverified(text: &[u8]) -> Result<Self, Malformed> {
        split(text).map(|(contents, ..)| contents)
    }
}

/// An id taken apart: its fields, the bytes that are signed, the MAC.
pub(super) fn split(text: &[u8]) -> Result<(Contents, [u8; SIGNED_BYTES], [u8; MAC_BYTES]), Malformed> {
    if text.len() != CHARS {
        return Err(Malformed::Length(text.len()));
    }
    let mut bytes = [0; BYTES];
    // The last character's four spare bits are refused unless they are zero.
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(BYTES) => {}
        _ => return Err(Malformed::Text),
    }
    let (mut signed, mut mac) = ([0; SIGNED_BYTES], [0; MAC_BYTES]);
    signed.copy_from_slice(&bytes[..SIGNED_BYTES]);
    mac.copy_from_slice(&bytes[SIGNED_BYTES..]);

    let number = |range: std::ops::Range<usize>| {
        signed[range].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let id = |start: usize| number(start..start + 4) as u32;
    let (head, count) = (number(0..6), number(12..17));
    let version = (head >> MOMENT_BITS) as u8;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let contents = Contents {
        at: UnixMillis((head & MOMENT_MAX.unsigned_abs()) as i64),
        node: NodeIdentity(number(6..12)),
        worker: WorkerIndex((count >> SEQUENCE_BITS) as u16),
        sequence: count as u32 & (SEQUENCES - 1),
        link: LinkId::new(id(17)).ok_or(Malformed::NoSuch)?,
        affiliate: AffiliateId::new(id(21)).ok_or(Malformed::NoSuch)?,
        offer: OfferId::new(id(25)),
    };
    Ok((contents, signed, mac))
}

impl ClickId {
    pub(super) fn join(signed: &[u8; SIGNED_BYTES], mac: [u8; MAC_BYTES]) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..SIGNED_BYTES].copy_from_slice(signed);
        bytes[SIGNED_BYTES..].copy_from_slice(&mac);
        let mut text = [b'A'; CHARS];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(CHARS));
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for ClickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl NodeIdentity {
    /// `random` must be; its low 48 bits are used.
    pub const fn new(random: u64) -> Self {
        Self(random & NODE_MASK)
    }

    /// As whom a thread goes on that has used up its sequence.
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }
}

/// Twelve hexadecimal digits.
impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl WorkerIndex {
    /// `None` from [`WORKERS_MAX`] on.
    pub fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok().filter(|_| index < WORKERS_MAX).map(Self)
    }

    pub const fn value(self) -> u16 {
        self.0
    }
}

/// The layout that is described at the head of this room.
pub const VERSION: u8 = 1;

/// Threads of a process that can be told apart: ten bits.
pub const WORKERS_MAX: usize = 1 << 10;

/// How many a thread counts before it goes on as the next node.
pub const SEQUENCES: u32 = 1 << SEQUENCE_BITS;

const SEQUENCE_BITS: u32 = 30;
const MOMENT_BITS: u32 = 44;
const MOMENT_MAX: i64 = (1 << MOMENT_BITS) - 1;
const NODE_MASK: u64 = (1 << 48) - 1;

pub(super) const SIGNED_BYTES: usize = 29;
pub(super) const MAC_BYTES: usize = 8;
const BYTES: usize = SIGNED_BYTES + MAC_BYTES;
const CHARS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let contents = Contents {
            at: UnixMillis(0x1a0_b0c0_d0e0),
            node: NodeIdentity::new(0xffff_0102_0304_0506),
            worker: WorkerIndex::new(1023).unwrap(),
            sequence: 1,
            link: LinkId::new(301).unwrap(),
            affiliate: AffiliateId::new(67890).unwrap(),
            offer: OfferId::new(1042),
        };
        let bytes = contents.to_bytes();
        assert_eq!(bytes[..6], [0x11, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0], "version and moment");
        assert_eq!(bytes[6..12], [1, 2, 3, 4, 5, 6], "node");
        assert_eq!(bytes[12..17], [0xff, 0xc0, 0, 0, 1], "worker and sequence");
        assert_eq!(bytes[17..21], 301_u32.to_be_bytes());
        assert_eq!(bytes[21..25], 67890_u32.to_be_bytes());
        assert_eq!(bytes[25..], 1042_u32.to_be_bytes());
        let id = ClickId::join(&bytes, [0xff; MAC_BYTES]);
        assert_eq!(id.as_str(), "EaCwwNDgAQIDBAUG_8AAAAEAAAEtAAEJMgAABBL__________w");
        assert_eq!(Contents::read_unverified(id.as_str().as_bytes()), Ok(contents));
    }

    #[test]
    fn indices_of_workers_end() {
        assert_eq!(WorkerIndex::new(1023).map(WorkerIndex::value), Some(1023));
        for index in [1024, 65_536, usize::MAX] {
            assert_eq!(WorkerIndex::new(index), None);
        }
    }
}
