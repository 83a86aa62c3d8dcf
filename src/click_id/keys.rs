//! The keys of click ids: the text of their file, signing, verifying.

use std::fmt;

use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;

use super::contents::{ClickId, Contents, MAC_BYTES, Malformed, SIGNED_BYTES, split};

/// The first key signs; it and the second, if there is one, verify. It has no `Display`, and `Debug` tells nothing.
#[derive(Clone)]
pub struct ClickIdKeys {
    first: MacKey,
    second: Option<MacKey>,
    address_key: [u8; 16],
}

/// Which key an id was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    First,
    Second,
}

/// Why an id is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("its MAC is wrong: it was forged or damaged, or signed with another key")]
    Forged,
}

/// What is wrong with the text of a key file, and what to do. It never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    #[error("line 1: there is no key; `openssl rand -hex 32` makes one")]
    Empty,
    #[error("line {0}: this is no key, which has 64 hexadecimal digits; `openssl rand -hex 32` makes one")]
    NoKey(usize),
    #[error("line {0}: this is a third key; keep the one that signs, and at most one that is valid besides")]
    Third(usize),
    #[error("line {0}: this is the first key once more; remove it, or put another here")]
    Repeated(usize),
}

impl ClickIdKeys {
    /// Reads the text of a key file: a key a line, one or two of them. White space around a key, and lines without
    /// anything else, are no matter.
    pub fn from_text(text: &[u8]) -> Result<Self, KeyTextError> {
        let mut secrets: [Option<Secret>; 2] = [None, None];
        for (line, bytes) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let digits = bytes.trim_ascii();
            if digits.is_empty() {
                continue;
            }
            let secret = secret(digits).ok_or(KeyTextError::NoKey(line))?;
            match &mut secrets {
                [first @ None, _] => *first = Some(secret),
                [Some(first), _] if bool::from(first.ct_eq(&secret)) => {
                    return Err(KeyTextError::Repeated(line));
                }
                [_, second @ None] => *second = Some(secret),
                _ => return Err(KeyTextError::Third(line)),
            }
        }
        let [first, second] = secrets;
        let first = first.ok_or(KeyTextError::Empty)?;
        Ok(Self {
            first: MacKey::derive(&first),
            second: second.as_ref().map(MacKey::derive),
            address_key: derive(ADDRESS_PURPOSE, &first),
        })
    }

    /// The id of a click, signed with the first key.
    pub fn sign(&self, contents: Contents) -> ClickId {
        let signed = contents.to_bytes();
        ClickId::join(&signed, self.first.mac(&signed))
    }

    /// What an id says, if it was signed with one of the keys.
    pub fn verify(&self, text: &[u8]) -> Result<(Contents, Signer), Refused> {
        let (contents, signed, mac) = split(text)?;
        let is_of = |key: &MacKey| bool::from(key.mac(&signed).ct_eq(&mac));
        if is_of(&self.first) {
            Ok((contents, Signer::First))
        } else if self.second.as_ref().is_some_and(is_of) {
            Ok((contents, Signer::Second))
        } else {
            Err(Refused::Forged)
        }
    }
}

impl ClickIdKeys {
    /// The key by which the click log hashes addresses, if it is told to: of the first key, so that all nodes of a network
    /// hash alike.
    pub fn address_key(&self) -> &[u8; 16] {
        &self.address_key
    }
}

impl fmt::Debug for ClickIdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClickIdKeys(…)")
    }
}

/// A line of the file.
type Secret = [u8; SECRET_BYTES];

/// What a line comes to.
#[derive(Clone)]
struct MacKey(SipHasher24);

impl MacKey {
    /// Bound to this purpose and layout: the same line used for something else gives nothing away about these.
    fn derive(secret: &Secret) -> Self {
        Self(SipHasher24::new_with_key(&derive(PURPOSE, secret)))
    }

    /// Little-endian, as the authors of SipHash write it.
    fn mac(&self, signed: &[u8; SIGNED_BYTES]) -> [u8; MAC_BYTES] {
        self.0.hash(signed).to_le_bytes()
    }
}

/// A key of SipHash for this purpose alone.
fn derive(purpose: &str, secret: &Secret) -> [u8; 16] {
    let [derived @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = blake3::derive_key(purpose, secret);
    derived
}

fn secret(digits: &[u8]) -> Option<Secret> {
    if digits.len() != 2 * SECRET_BYTES {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut secret = [0; SECRET_BYTES];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(secret)
}

const SECRET_BYTES: usize = 32;

/// A context of BLAKE3's key derivation: never to be changed, or ids in the world are refused.
const PURPOSE: &str = "smartlink 2026-11-22 MAC of click ids, version 1";

/// As above: or the same visitor has another name in logs from then on.
const ADDRESS_PURPOSE: &str = "smartlink 2026-11-22 hash of addresses in click logs, version 1";

#[cfg(test)]
mod tests {
    use super::super::{NodeIdentity, SEQUENCES, WORKERS_MAX, WorkerIndex};
    use super::*;
    use crate::types::{AffiliateId, LinkId, OfferId, UnixMillis};

    const OLD: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const NEW: &str = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";

    fn keys(lines: &[&str]) -> ClickIdKeys {
        ClickIdKeys::from_text(lines.join("\n").as_bytes()).unwrap()
    }

    fn contents() -> Contents {
        Contents {
            at: UnixMillis(1_790_000_000_123),
            node: NodeIdentity::new(0x9f3a_0102_c4d5),
            worker: WorkerIndex::new(3).unwrap(),
            sequence: 17,
            link: LinkId::new(301).unwrap(),
            affiliate: AffiliateId::new(67890).unwrap(),
            offer: OfferId::new(1042),
        }
    }

    #[test]
    fn extremes_come_back() {
        let keys = keys(&[OLD]);
        let mut all = vec![contents()];
        let mut vary = |change: fn(&mut Contents)| {
            let mut varied = contents();
            change(&mut varied);
            all.push(varied);
        };
        vary(|c| c.at = UnixMillis(0));
        vary(|c| c.at = UnixMillis((1 << 44) - 1));
        vary(|c| c.node = NodeIdentity::new(0));
        vary(|c| c.node = NodeIdentity::new(u64::MAX));
        vary(|c| c.worker = WorkerIndex::new(0).unwrap());
        vary(|c| c.worker = WorkerIndex::new(WORKERS_MAX - 1).unwrap());
        vary(|c| c.sequence = 0);
        vary(|c| c.sequence = SEQUENCES - 1);
        vary(|c| c.link = LinkId::new(1).unwrap());
        vary(|c| c.link = LinkId::new(u32::MAX).unwrap());
        vary(|c| c.affiliate = AffiliateId::new(1).unwrap());
        vary(|c| c.affiliate = AffiliateId::new(u32::MAX).unwrap());
        vary(|c| c.offer = None);
        vary(|c| c.offer = OfferId::new(u32::MAX));
        for contents in all {
            let id = keys.sign(contents);
            assert!(id.as_str().len() == 50 && id.as_str().bytes().all(is_of_the_alphabet), "{id:?}");
            assert_eq!(keys.verify(id.as_str().as_bytes()), Ok((contents, Signer::First)));
        }
    }

    #[test]
    fn a_moment_out_of_range_is_the_nearest_in_it() {
        let keys = keys(&[OLD]);
        for (at, kept) in [(i64::MIN, 0), (-1, 0), (1 << 44, (1 << 44) - 1), (i64::MAX, (1 << 44) - 1)] {
            let id = keys.sign(Contents { at: UnixMillis(at), ..contents() });
            let (read, _) = keys.verify(id.as_str().as_bytes()).unwrap();
            assert_eq!(read, Contents { at: UnixMillis(kept), ..contents() });
        }
    }

    /// Of every character every bit, so of the 37 bytes too, and the spare ones.
    #[test]
    fn every_flipped_bit_is_refused() {
        let keys = keys(&[OLD, NEW]);
        let id = keys.sign(contents());
        let mut refused = 0;
        for position in 0..50 {
            for bit in 0..8 {
                let mut text = id.as_str().as_bytes().to_vec();
                text[position] ^= 1 << bit;
                assert!(keys.verify(&text).is_err(), "{position} {bit}");
                refused += 1;
            }
            for character in (0..=u8::MAX).filter(|&character| is_of_the_alphabet(character)) {
                let mut text = id.as_str().as_bytes().to_vec();
                if text[position] != character {
                    text[position] = character;
                    assert!(keys.verify(&text).is_err(), "{position} {}", char::from(character));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 50 * (8 + 63));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let keys = keys(&[OLD]);
        let id = keys.sign(contents());
        let text = id.as_str();
        for length in 0..50 {
            for cut in [&text[..length], &text[50 - length..]] {
                assert_eq!(keys.verify(cut.as_bytes()), Err(Malformed::Length(length).into()));
            }
        }
        for more in ["A", "=", "==", "\n", " ", "\0"] {
            for extended in [format!("{text}{more}"), format!("{more}{text}")] {
                let refused = Malformed::Length(50 + more.len()).into();
                assert_eq!(keys.verify(extended.as_bytes()), Err(refused));
            }
        }
    }

    #[test]
    fn what_is_signed_and_makes_no_sense_is_refused() {
        let keys = keys(&[OLD]);
        let signed_as_it_is = |change: fn(&mut [u8; SIGNED_BYTES])| {
            let mut signed = contents().to_bytes();
            change(&mut signed);
            let id = ClickId::join(&signed, keys.first.mac(&signed));
            keys.verify(id.as_str().as_bytes())
        };
        assert!(signed_as_it_is(|_| {}).is_ok());
        let refused = |malformed: Malformed| Err(malformed.into());
        assert_eq!(signed_as_it_is(|bytes| bytes[0] += 0x10), refused(Malformed::Version(2)));
        assert_eq!(signed_as_it_is(|bytes| bytes[17..21].fill(0)), refused(Malformed::NoSuch));
        assert_eq!(signed_as_it_is(|bytes| bytes[21..25].fill(0)), refused(Malformed::NoSuch));
    }

    #[test]
    fn another_key_is_refused() {
        let id = keys(&[OLD]).sign(contents());
        let mut nearly = OLD.to_owned();
        nearly.replace_range(63.., "1");
        for other in [NEW, &nearly] {
            assert_eq!(keys(&[other]).verify(id.as_str().as_bytes()), Err(Refused::Forged));
        }
    }

    /// Node by node: the new key second, then first, then alone. Whatever the two nodes are at, every id is believed.
    #[test]
    fn keys_are_rotated_without_refusing_an_id() {
        let steps = [keys(&[OLD]), keys(&[OLD, NEW]), keys(&[NEW, OLD]), keys(&[NEW])];
        for (a, b) in [(0, 1), (1, 1), (1, 2), (2, 2)] {
            for (signs, verifies) in [(a, b), (b, a)] {
                let id = steps[signs].sign(contents());
                assert!(steps[verifies].verify(id.as_str().as_bytes()).is_ok(), "{signs} {verifies}");
            }
        }
        let id = steps[0].sign(contents());
        let by = |step: usize| steps[step].verify(id.as_str().as_bytes()).map(|(_, signer)| signer);
        assert_eq!(by(1), Ok(Signer::First));
        assert_eq!(by(2), Ok(Signer::Second));
        assert_eq!(by(3), Err(Refused::Forged));
    }

    #[test]
    fn texts_of_key_files() {
        let id = keys(&[OLD]).sign(contents());
        for text in [format!("{OLD}\n"), format!("\n  {OLD}\t\r\n\r\n"), OLD.to_uppercase()] {
            let keys = ClickIdKeys::from_text(text.as_bytes()).unwrap();
            assert!(keys.verify(id.as_str().as_bytes()).is_ok(), "{text:?}");
        }
        let third = "7".repeat(64);
        for (text, error) in [
            (String::new(), KeyTextError::Empty),
            (" \n\n".to_owned(), KeyTextError::Empty),
            (OLD[1..].to_owned(), KeyTextError::NoKey(1)),
            (format!("{OLD}0"), KeyTextError::NoKey(1)),
            (OLD.replace('f', "g"), KeyTextError::NoKey(1)),
            (format!("{OLD} {NEW}"), KeyTextError::NoKey(1)),
            (format!("{OLD}\n\n# old\n"), KeyTextError::NoKey(3)),
            (format!("{OLD}\n{NEW}\n{third}\n"), KeyTextError::Third(3)),
            (format!("{OLD}\n\n{}\n", OLD.to_uppercase()), KeyTextError::Repeated(3)),
        ] {
            let refused = ClickIdKeys::from_text(text.as_bytes()).unwrap_err();
            assert_eq!(refused, error, "{text:?}");
            assert!(!refused.to_string().contains(&OLD[..8]));
        }
        assert_eq!(ClickIdKeys::from_text(b"\xff\xfe").unwrap_err(), KeyTextError::NoKey(1));
    }

    #[test]
    fn shows_nothing() {
        assert_eq!(format!("{:?}", keys(&[OLD, NEW])), "ClickIdKeys(…)");
    }

    /// Ids are in the world for months: what made one must make it again.
    #[test]
    fn a_known_key_and_click_make_a_known_id() {
        assert_eq!(
            keys(&[OLD]).sign(contents()).as_str(),
            "EaDEUGx7nzoBAsTVAMAAABEAAAEtAAEJMgAABBLJnQl6f8odGQ"
        );
    }

    fn is_of_the_alphabet(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
    }
}
