//! One click as a line of JSON, written without an intermediate value. Every key is there in every line, `null` where nothing
//! is known, so that tools that guess columns from the first lines guess right.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use siphasher::sip::SipHasher24;

use crate::types::{AffiliateId, Country, Device, Draw, LinkId, OfferId, Region, RuleId, Subs, UnixMillis};

/// What is written of a click.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub click_id: &'a str,
    pub at: UnixMillis,
    /// The name of what became of it, as in `clicks_total`; of a probe or a bot, what was decided for it.
    pub outcome: &'a str,
    pub link: LinkId,
    pub affiliate: AffiliateId,
    pub offer: Option<OfferId>,
    pub rule: Option<RuleId>,
    /// Of the tier that took it.
    pub priority: Option<u32>,
    pub draw: Draw,
    /// The name of the snapshot that decided; with the draw, what is needed to decide it again.
    pub snapshot: &'a str,
    pub address: IpAddr,
    pub country: Option<Country>,
    pub region: Option<Region>,
    pub device: Device,
    /// As sent; at most [`TEXT_BYTES_MAX`] bytes of it are written.
    pub user_agent: Option<&'a str>,
    /// As sent; at most [`TEXT_BYTES_MAX`] bytes of it are written.
    pub referrer: Option<&'a str>,
    pub subs: Subs<'a>,
    pub probe: bool,
}

/// How much of a visitor's address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressDetail {
    Full,
    /// The network alone: the first 24 bits of IPv4, the first 48 of IPv6.
    Truncated,
    /// 16 hexadecimal digits of a keyed hash (SipHash-2-4), the same for the same address wherever the key is.
    Hashed,
}

/// Hashes addresses: all nodes of a network have the same.
pub type AddressKey = [u8; 16];

/// Of a text that a visitor chooses, as much is written, cut at a character boundary.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What is the same for many lines.
#[derive(Debug)]
pub(super) struct Lines {
    addresses: AddressDetail,
    hasher: SipHasher24,
    /// The second that `second_text` spells.
    second: i64,
    second_text: String,
}

impl Lines {
    pub(super) fn new(addresses: AddressDetail, key: &AddressKey) -> Self {
        let hasher = SipHasher24::new_with_key(key);
        Self { addresses, hasher, second: i64::MIN, second_text: String::new() }
    }

    /// Appends the line, its newline included.
    pub(super) fn write(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"click_id\":\"");
        out.extend_from_slice(record.click_id.as_bytes());
        out.extend_from_slice(b"\",\"time\":\"");
        self.write_time(record.at, out);
        out.extend_from_slice(b"\",\"outcome\":\"");
        out.extend_from_slice(record.outcome.as_bytes());
        out.extend_from_slice(b"\",\"smart_link_id\":");
        write_number(record.link.value(), out);
        out.extend_from_slice(b",\"affiliate_id\":");
        write_number(record.affiliate.value(), out);
        write_optional_number(b",\"offer_id\":", record.offer.map(OfferId::value), out);
        write_optional_number(b",\"rule_id\":", record.rule.map(RuleId::value), out);
        write_optional_number(b",\"priority\":", record.priority, out);
        out.extend_from_slice(b",\"draw\":\"");
        write_hex(record.draw.0, out);
        out.extend_from_slice(b"\",\"snapshot\":\"");
        out.extend_from_slice(record.snapshot.as_bytes());
        out.extend_from_slice(b"\",\"ip\":\"");
        self.write_address(record.address, out);
        out.push(b'"');
        // Codes and names of our own lists have nothing to escape.
        write_plain(b",\"country\":", record.country.map(Country::as_str), out);
        write_plain(b",\"region\":", record.region.as_ref().map(Region::as_str), out);
        let Device { kind, os, browser, bot } = record.device;
        write_plain(b",\"device\":", Some(kind.as_str()), out);
        write_plain(b",\"os\":", Some(os.as_str()), out);
        write_plain(b",\"browser\":", Some(browser.as_str()), out);
        write_text(b",\"user_agent\":", record.user_agent, out);
        write_text(b",\"referrer\":", record.referrer, out);
        for (key, sub) in SUB_KEYS.iter().zip(record.subs) {
            write_text(key, sub, out);
        }
        out.extend_from_slice(if bot { b",\"bot\":true" } else { b",\"bot\":false" });
        out.extend_from_slice(if record.probe { b",\"probe\":true}\n" } else { b",\"probe\":false}\n" });
    }

    /// `2026-11-22T20:15:30.123Z`. The second is spelled once for all clicks in it.
    fn write_time(&mut self, at: UnixMillis, out: &mut Vec<u8>) {
        let second = at.seconds();
        if second != self.second {
            let moment = Timestamp::from_second(second).unwrap_or_default();
            self.second_text = moment.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
            self.second = second;
        }
        out.extend_from_slice(self.second_text.as_bytes());
        let millis = at.0.rem_euclid(1000) as u16;
        out.extend_from_slice(&[digit(millis / 100), digit(millis / 10 % 10), digit(millis % 10), b'Z']);
    }

    fn write_address(&self, address: IpAddr, out: &mut Vec<u8>) {
        let shown = match (self.addresses, address) {
            (AddressDetail::Full, address) => address,
            (AddressDetail::Truncated, IpAddr::V4(v4)) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
            (AddressDetail::Truncated, IpAddr::V6(v6)) => {
                Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)).into()
            }
            (AddressDetail::Hashed, IpAddr::V4(v4)) => return write_hex(self.hasher.hash(&v4.octets()), out),
            (AddressDetail::Hashed, IpAddr::V6(v6)) => return write_hex(self.hasher.hash(&v6.octets()), out),
        };
        match shown {
            IpAddr::V4(v4) => {
                for (place, octet) in v4.octets().into_iter().enumerate() {
                    if place > 0 {
                        out.push(b'.');
                    }
                    write_number(octet.into(), out);
                }
            }
            // A Vec takes whatever is written.
            IpAddr::V6(v6) => drop(write!(out, "{v6}")),
        }
    }
}

fn write_number(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_optional_number(key: &[u8], number: Option<u32>, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    match number {
        Some(number) => write_number(number, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// 16 digits.
fn write_hex(number: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = number.to_be_bytes();
    let pairs = bytes.map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    out.extend_from_slice(pairs.as_flattened());
}

fn write_plain(key: &[u8], text: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    match text {
        Some(text) => {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn write_text(key: &[u8], text: Option<&str>, out: &mut Vec<u8>) {
    let Some(text) = text else { return write_plain(key, None, out) };
    out.extend_from_slice(key);
    out.push(b'"');
    let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    // Nearly all texts have nothing to escape.
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        write_escaped(text, out);
    }
    out.push(b'"');
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'"', _) => out.extend_from_slice(b"\\\""),
            (b'\\', _) => out.extend_from_slice(b"\\\\"),
            (0..0x20 | 0x7f, _) => write_code(byte, out),
            // U+0080 to U+009F in UTF-8.
            (C1_LEAD, Some(&code @ 0x80..=0x9f)) => {
                write_code(code, out);
                rest = &after[1..];
            }
            _ => out.push(byte),
        }
    }
}

fn write_code(code: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[DIGITS[usize::from(code >> 4)], DIGITS[usize::from(code & 15)]]);
}

/// Whether all of it may be copied as it is. A block is looked at as a whole, which compilers make a few instructions of: they
/// do so only where no byte decides whether the next is looked at.
fn is_plain(text: &[u8]) -> bool {
    let has_none = |block: &[u8]| !block.iter().fold(false, |any, &byte| any | may_need_escape(byte));
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    // The last bytes of a longer text are looked at as a block too, with some that were looked at before.
    let rest = text.last_chunk::<BLOCK>().map_or(rest, |last| last.as_slice());
    blocks.iter().all(|block| has_none(block)) && has_none(rest)
}

/// What JSON wants escaped (RFC 8259, 7), and the other control characters: a line is looked at in terminals, too, and some of
/// them take U+009B for the beginning of a command.
fn may_need_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f) | (byte == C1_LEAD)
}

/// The first byte of U+0080 to U+00BF.
const C1_LEAD: u8 = 0xc2;

fn digit(value: u16) -> u8 {
    b'0' + value as u8
}

const SUB_KEYS: [&[u8]; 5] = [b",\"s1\":", b",\"s2\":", b",\"s3\":", b",\"s4\":", b",\"s5\":"];

const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::types::{Browser, DeviceKind, Os, SUB_BYTES_MAX};

    const KEY: AddressKey = [7; 16];

    fn record() -> Record<'static> {
        Record {
            click_id: "c-1_Z",
            at: UnixMillis(1_790_000_000_007),
            outcome: "offer",
            link: LinkId::new(301).unwrap(),
            affiliate: AffiliateId::new(67890).unwrap(),
            offer: OfferId::new(1042),
            rule: None,
            priority: Some(2),
            draw: Draw(0x00ff_0000_0000_0001),
            snapshot: "abc123",
            address: "203.0.113.7".parse().unwrap(),
            country: Country::parse("US"),
            region: Region::parse("US-CA"),
            device: Device {
                kind: DeviceKind::Mobile,
                os: Os::Android,
                browser: Browser::Chrome,
                bot: false,
            },
            user_agent: Some("Mozilla/5.0"),
            referrer: None,
            subs: [Some("summer sale"), None, None, None, Some("")],
            probe: false,
        }
    }

    fn written(record: &Record<'_>, addresses: AddressDetail) -> String {
        let mut line = Vec::new();
        Lines::new(addresses, &KEY).write(record, &mut line);
        String::from_utf8(line).unwrap()
    }

    fn read(record: &Record<'_>, addresses: AddressDetail) -> Value {
        let line = written(record, addresses);
        assert_eq!(line.find(char::is_control), Some(line.len() - 1), "{line:?}");
        assert!(line.ends_with('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_line_has_every_field() {
        assert_eq!(
            read(&record(), AddressDetail::Full),
            json!({
                "click_id": "c-1_Z", "time": "2026-09-21T14:13:20.007Z", "outcome": "offer", "smart_link_id": 301,
                "affiliate_id": 67890, "offer_id": 1042, "rule_id": null, "priority": 2, "draw": "00ff000000000001",
                "snapshot": "abc123", "ip": "203.0.113.7", "country": "US", "region": "US-CA", "device": "mobile",
                "os": "android", "browser": "chrome", "user_agent": "Mozilla/5.0", "referrer": null,
                "s1": "summer sale", "s2": null, "s3": null, "s4": null, "s5": "", "bot": false, "probe": false,
            })
        );
    }

    #[test]
    fn the_second_is_spelled_anew_when_it_is_another() {
        let mut lines = Lines::new(AddressDetail::Full, &KEY);
        for (millis, time) in [
            (1_790_000_000_007, "2026-09-21T14:13:20.007Z"),
            (1_790_000_000_999, "2026-09-21T14:13:20.999Z"),
            (1_790_000_001_000, "2026-09-21T14:13:21.000Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            let mut line = Vec::new();
            lines.write(&Record { at: UnixMillis(millis), ..record() }, &mut line);
            let value: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value["time"], time);
        }
    }

    #[test]
    fn addresses_as_configured() {
        let ip = |address: &str, detail| {
            let record = Record { address: address.parse().unwrap(), ..record() };
            read(&record, detail)["ip"].as_str().unwrap().to_owned()
        };
        assert_eq!(ip("203.0.113.7", AddressDetail::Truncated), "203.0.113.0");
        assert_eq!(ip("2001:db8:1:2::3", AddressDetail::Full), "2001:db8:1:2::3");
        assert_eq!(ip("2001:db8:1:2::3", AddressDetail::Truncated), "2001:db8:1::");
        let [one, again, other, v6] = ["203.0.113.7", "203.0.113.7", "203.0.113.8", "2001:db8::1"]
            .map(|address| ip(address, AddressDetail::Hashed));
        assert_eq!((one.len(), &one), (16, &again));
        assert!(one != other && one != v6 && other != v6, "{one} {other} {v6}");
        assert!(one.bytes().all(|digit| digit.is_ascii_hexdigit()), "{one}");
    }

    #[test]
    fn a_line_has_room_whatever_is_in_it() {
        let long = "\u{1}".repeat(2 * TEXT_BYTES_MAX);
        let sub = "\u{1}".repeat(SUB_BYTES_MAX);
        let longest = Record {
            click_id: &"x".repeat(50),
            outcome: "affiliate_mismatch",
            link: LinkId::new(u32::MAX).unwrap(),
            affiliate: AffiliateId::new(u32::MAX).unwrap(),
            offer: OfferId::new(u32::MAX),
            rule: RuleId::new(u32::MAX),
            priority: Some(u32::MAX),
            snapshot: &"f".repeat(64),
            address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            user_agent: Some(&long),
            referrer: Some(&long),
            subs: [Some(&sub); 5],
            ..record()
        };
        let line = written(&longest, AddressDetail::Full);
        assert!(line.len() <= super::super::writer::LINE_BYTES_MAX, "{}", line.len());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["referrer"].as_str().unwrap().len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn every_control_character_is_spelled() {
        let text: String = (0..=0x20).chain(0x7e..=0xa1).filter_map(char::from_u32).collect();
        // Over the edge of a block wherever it may be.
        for padding in 0..2 * BLOCK {
            let text = "x".repeat(padding) + &text + "\u{9b}";
            let value = read(&Record { user_agent: Some(&text), ..record() }, AddressDetail::Full);
            assert_eq!(value["user_agent"], text);
        }
        let line =
            written(&Record { user_agent: Some("\u{9b}31m\u{7f}\u{1b}°"), ..record() }, AddressDetail::Full);
        assert!(line.contains(r#""user_agent":"\u009b31m\u007f\u001b°""#), "{line}");
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in "(\\PC|[\\x00-\\x1f\"\\\\]|[\\x7f-\u{bf}]|.){0,90}") {
            let value = read(&Record { user_agent: Some(&text), ..record() }, AddressDetail::Full);
            prop_assert_eq!(value["user_agent"].as_str().unwrap(), text);
        }

        #[test]
        fn a_text_is_cut_between_characters(text in "[aé€😀]{240,1100}") {
            let value = read(&Record { referrer: Some(&text), ..record() }, AddressDetail::Full);
            let read = value["referrer"].as_str().unwrap();
            prop_assert!(text.starts_with(read));
            prop_assert!(read.len() == text.len() || read.len() > TEXT_BYTES_MAX - 4);
        }
    }
}
