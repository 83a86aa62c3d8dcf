//! A network as lines of JSON, one for an item: what `network.json` answers and what a node keeps on its disk. A reader
//! of a million links never holds more than a line of them as text.
//!
//! ```text
//! {"network":{"revision":"9f…","since":"4c…"}}                  first, over the wire; without `since` it is the whole
//! {"changed_link":{"smart_link_id":301}}                        changes: all that follows of this link is all there is
//! {"offer":{…}} {"offer_geo_targets":{…}} {"smart_link":{…}} {"smart_link_offer":{…}} {"routing_rule":{…}}
//! {"end":{"lines":17}}                                          last, over the wire: how many came before it
//! ```
//!
//! Items are those of the lists of the API, without what no click needs.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::network::{Network, ReadAttachment, ReadLink};
use super::wire::{OfferGeoTargets, OfferItem, RoutingRule, SmartLink, SmartLinkOffer};
use crate::routing::LinkIds;
use crate::types::LinkId;

/// A line to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Network(&'a Head),
    ChangedLink { smart_link_id: i64 },
    SmartLink(&'a SmartLink),
    Offer(&'a OfferItem),
    OfferGeoTargets(&'a OfferGeoTargets),
    SmartLinkOffer(&'a SmartLinkOffer),
    RoutingRule(&'a RoutingRule),
    End(&'a End),
}

/// What the lines tell of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The state of the network.
    pub revision: String,
    /// The state whose difference to it the lines are; without it they are the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// That nothing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How many lines came before this one.
    pub lines: u64,
}

/// Lines, as far as they have been read.
#[derive(Debug, Default)]
pub struct Lines {
    pub network: Network,
    /// The links that the lines tell of, where they are not the whole.
    pub changed: LinkIds,
    pub head: Option<Head>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    count: u64,
    is_whole: bool,
}

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} cannot be read: {reason}")]
pub struct LineError {
    /// From 1.
    pub line: u64,
    pub reason: String,
}

impl Line<'_> {
    /// Writes the line and its end.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}

impl Network {
    /// Writes every item. Of a canonical network, equal content gives equal bytes.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.offers.iter().try_for_each(|offer| Line::Offer(offer).write(out))?;
        self.offer_geo_targets.iter().try_for_each(|targets| Line::OfferGeoTargets(targets).write(out))?;
        self.smart_links.iter().try_for_each(|link| Line::SmartLink(&link.into()).write(out))?;
        self.smart_link_offers.iter().try_for_each(|entry| Line::SmartLinkOffer(&entry.into()).write(out))?;
        self.routing_rules.iter().try_for_each(|rule| Line::RoutingRule(rule).write(out))
    }
}

impl Lines {
    /// Reads on, from wherever the last piece was cut.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), LineError> {
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.partial.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole)?;
                whole.clear();
                // Its memory serves the next piece.
                self.partial = whole;
            }
        }
        if self.partial.len() + piece.len() > LINE_BYTES_MAX {
            return Err(self.unreadable(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    /// How many lines were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the last line came, and none after it.
    pub fn is_whole(&self) -> bool {
        self.is_whole && self.partial.is_empty()
    }

    fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        if self.is_whole {
            return Err(self.unreadable("it comes after the end"));
        }
        match serde_json::from_slice(line) {
            Ok(ReadLine::SmartLink(ReadLink(link))) => self.network.smart_links.push(link),
            Ok(ReadLine::SmartLinkOffer(ReadAttachment(entry))) => self.network.smart_link_offers.push(entry),
            Ok(ReadLine::RoutingRule(rule)) => self.network.routing_rules.push(*rule),
            Ok(ReadLine::Offer(offer)) => self.network.offers.push(*offer),
            Ok(ReadLine::OfferGeoTargets(targets)) => self.network.offer_geo_targets.push(targets),
            Ok(ReadLine::ChangedLink { smart_link_id }) => {
                let link = LinkId::new(smart_link_id).ok_or_else(|| self.unreadable("no link is 0"))?;
                self.changed.insert(link);
            }
            Ok(ReadLine::Network(head)) if self.count == 0 => self.head = Some(head),
            Ok(ReadLine::Network(_)) => return Err(self.unreadable("it can only be the first")),
            Ok(ReadLine::End(end)) if end.lines == self.count => self.is_whole = true,
            Ok(ReadLine::End(end)) => {
                let reason = format!("it says that {} lines came before it", end.lines);
                return Err(self.unreadable(reason));
            }
            Err(error) => return Err(self.unreadable(error.to_string())),
        }
        self.count += 1;
        Ok(())
    }

    fn unreadable(&self, reason: impl Into<String>) -> LineError {
        LineError { line: self.count + 1, reason: reason.into() }
    }
}

/// A line, as it is read. Boxed where an item is much larger than those of which there are millions.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadLine {
    Network(Head),
    ChangedLink { smart_link_id: u32 },
    SmartLink(ReadLink),
    Offer(Box<OfferItem>),
    OfferGeoTargets(OfferGeoTargets),
    SmartLinkOffer(ReadAttachment),
    RoutingRule(Box<RoutingRule>),
    End(End),
}

/// Longer than the longest rule that the API takes.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network() -> Network {
        serde_json::from_value(json!({
            "smart_links": [
                {"smart_link_id": 1, "affiliate_id": 9, "smart_link_status": "active", "cap_aware": false},
                {"smart_link_id": 2, "affiliate_id": 9, "smart_link_status": "inactive", "rotation_type": "even",
                 "fallback_url": "https://f.example/"},
            ],
            "offers": [{"offer_id": 10, "offer_status": "active", "offer_url": "https://a.example/", "payout": 4.5}],
            "offer_geo_targets": [{"offer_id": 10, "geo_targets": [{"country_code": "US", "action": "allow"}]}],
            "smart_link_offers": [{"smart_link_id": 1, "offer_id": 10, "offer_weight": 0, "priority": 4294967295u32}],
            "routing_rules": [{"rule_id": 7, "smart_link_id": 1, "offer_id": 10, "conditions": {"country": {"in": ["US"]}}}],
        }))
        .unwrap()
    }

    fn text(network: &Network) -> Vec<u8> {
        let mut text = Vec::new();
        network.write(&mut text).unwrap();
        text
    }

    fn error(text: &str) -> String {
        Lines::default().push(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read_back_wherever_it_is_cut() {
        let written = text(&network());
        for piece in 1..written.len() {
            let mut lines = Lines::default();
            for piece in written.chunks(piece) {
                lines.push(piece).unwrap();
            }
            assert_eq!(lines.network, network(), "pieces of {piece} bytes");
            assert_eq!(lines.count(), 6);
        }
    }

    #[test]
    fn the_end_is_missed_and_must_fit() {
        let mut lines = Lines::default();
        lines.push(b"{\"network\":{\"revision\":\"a\",\"since\":\"b\"}}\n{\"changed_link\":{\"smart_link_id\":3}}\n").unwrap();
        assert!(!lines.is_whole());
        lines.push(b"{\"end\":{\"lines\":2}}").unwrap();
        assert!(!lines.is_whole(), "the line itself has no end yet");
        lines.push(b"\n").unwrap();
        assert!(lines.is_whole());
        assert_eq!(lines.changed, [LinkId::new(3).unwrap()].into_iter().collect());
        assert_eq!(lines.head.as_ref().unwrap().since.as_deref(), Some("b"));
        assert!(lines.push(b"{\"end\":{\"lines\":3}}\n").unwrap_err().to_string().contains("after the end"));
        assert!(
            error("{\"end\":{\"lines\":1}}\n").contains("line 1 cannot be read: it says that 1 lines came")
        );
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for (line, said) in [
            ("", "EOF"),
            ("[]", "expected value"),
            ("{\"planet\":{}}", "unknown variant `planet`"),
            (
                "{\"smart_link_offer\":{\"smart_link_id\":1,\"offer_id\":1,\"offer_weight\":101}}",
                "`offer_weight` is 101",
            ),
            (
                "{\"smart_link\":{\"smart_link_id\":0,\"affiliate_id\":1,\"smart_link_status\":\"active\"}}",
                "`smart_link_id` is 0",
            ),
            ("{\"changed_link\":{\"smart_link_id\":0}}", "no link is 0"),
        ] {
            let error = error(&format!("{{\"changed_link\":{{\"smart_link_id\":1}}}}\n{line}\n"));
            assert!(error.starts_with("line 2 ") && error.contains(said), "{line}: {error}");
        }
        assert!(error(&"x".repeat(LINE_BYTES_MAX + 1)).contains("longer than"));
    }
}
