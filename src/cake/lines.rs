//! A network as lines of JSON, one for an item: what `network.json` answers and what a node keeps on its disk. A reader
//! of a million links never holds more than a line of them as text.
//!
//! ```text
//! {"network":{"revision":"9f…","since":"4c…"}}                  first, over the wire; without `since` it is the whole
//! {"changed_link":{"smart_link_id":301}}                        changes: all that follows of this link is all there is
//! {"offer_caps_changed":{}}                                     changes: the caps that follow are all there are
//! {"offer":{…}} {"offer_geo_targets":{…}}
//! {"link":{…}} {"link_offers":{…}} {"conditions":{…}} {"rule":[…]}   as `dense.rs` has them
//! {"offer_cap":{…}}
//! {"end":{"lines":17}}                                          last, over the wire: how many came before it
//! ```
//!
//! Offers, geo targets and caps are those of the lists of the API, without what no click needs. Links, attachments and
//! rules are read in that form, too, which an older smartlink writes and older files have: `{"smart_link":{…}}`,
//! `{"smart_link_offer":{…}}`, `{"routing_rule":{…}}`.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dense::{
    ConditionsLine, LinkLine, LinkOffersLine, RuleLine, RuleLines, ToldConditions, write_links,
};
use super::network::{Network, ReadAttachment, ReadLink, RuleReader, RuleRow};
use super::wire::{FieldError, OfferCap, OfferGeoTargets, OfferItem};
use crate::routing::LinkIds;
use crate::types::LinkId;

/// A line to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Network(&'a Head),
    ChangedLink { smart_link_id: i64 },
    OfferCapsChanged {},
    Offer(&'a OfferItem),
    OfferGeoTargets(&'a OfferGeoTargets),
    Link(&'a LinkLine<'a>),
    LinkOffers(&'a LinkOffersLine),
    Conditions(&'a ConditionsLine<'a>),
    Rule(RuleLine),
    OfferCap(&'a OfferCap),
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
    /// Whether the lines tell of the caps, where they are not the whole.
    pub caps_changed: bool,
    pub head: Option<Head>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    count: u64,
    is_whole: bool,
    told: ToldConditions,
    /// Of older lines.
    rules: RuleReader,
    /// How long a line may be; `None`: as long as it is.
    line_bytes_max: Option<usize>,
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
        let (links, attached) = (self.smart_links.iter(), self.smart_link_offers.iter());
        write_links::<io::Error>(
            links.map(|link| Ok(link.into())),
            attached.map(|entry| Ok(entry.into())),
            out,
        )?;
        let mut rules = RuleLines::default();
        self.routing_rules.iter().try_for_each(|rule| rules.write(rule, out))?;
        self.offer_caps.iter().try_for_each(|cap| Line::OfferCap(cap).write(out))
    }
}

impl Lines {
    /// Of lines that somebody else writes.
    pub fn bounded(line_bytes_max: usize) -> Self {
        Self { line_bytes_max: Some(line_bytes_max), ..Self::default() }
    }

    /// Reads on, from wherever the last piece was cut.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), LineError> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
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
        if let Some(most) = self.line_bytes_max.filter(|&most| self.partial.len() + piece.len() > most) {
            return Err(self.unreadable(format!("it is longer than {most} bytes")));
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    /// How many lines were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many items the longest list has.
    pub fn rows_most(&self) -> usize {
        let Network { smart_links, offers, offer_geo_targets, smart_link_offers, routing_rules, offer_caps } =
            &self.network;
        [
            smart_links.len(),
            offers.len(),
            offer_geo_targets.len(),
            smart_link_offers.len(),
            routing_rules.len(),
            offer_caps.len(),
            self.changed.len(),
        ]
        .into_iter()
        .fold(0, usize::max)
    }

    /// Whether the last line came, and none after it.
    pub fn is_whole(&self) -> bool {
        self.is_whole && self.partial.is_empty()
    }

    fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        if self.is_whole {
            return Err(self.unreadable("it comes after the end"));
        }
        let number = self.count + 1;
        let unreadable = |error: FieldError| LineError { line: number, reason: error.to_string() };
        match serde_json::from_slice(line) {
            Ok(ReadLine::Link(link)) => link.read(&mut self.network).map_err(unreadable)?,
            Ok(ReadLine::LinkOffers(offers)) => offers.read(&mut self.network).map_err(unreadable)?,
            Ok(ReadLine::Conditions(conditions)) => self.told.hear(&conditions).map_err(unreadable)?,
            Ok(ReadLine::Rule(rule)) => {
                self.network.routing_rules.push(self.told.rule(rule).map_err(unreadable)?);
            }
            Ok(ReadLine::SmartLink(ReadLink(link))) => self.network.smart_links.push(link),
            Ok(ReadLine::SmartLinkOffer(ReadAttachment(entry))) => self.network.smart_link_offers.push(entry),
            Ok(ReadLine::RoutingRule(row)) => {
                self.network.routing_rules.push(self.rules.read(&row).map_err(unreadable)?);
            }
            Ok(ReadLine::Offer(offer)) => self.network.offers.push(*offer),
            Ok(ReadLine::OfferGeoTargets(targets)) => self.network.offer_geo_targets.push(targets),
            Ok(ReadLine::ChangedLink { smart_link_id }) => {
                let link = LinkId::new(smart_link_id).ok_or_else(|| self.unreadable("no link is 0"))?;
                self.changed.insert(link);
            }
            Ok(ReadLine::OfferCapsChanged {}) => self.caps_changed = true,
            Ok(ReadLine::OfferCap(cap)) => self.network.offer_caps.push(*cap),
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

/// How long so many bytes of lines may take beyond the patience that one has with any answer: a large network may take
/// long, somebody who drips may not.
pub fn time_for(patience: Duration, bytes: usize) -> Duration {
    patience + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

/// Slower than this is not a network that works.
const BYTES_PER_SECOND_MIN: usize = 256 * 1024;

/// A line, as it is read. Boxed where an item is much larger than those of which there are millions.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadLine<'a> {
    Network(Head),
    ChangedLink {
        smart_link_id: u32,
    },
    OfferCapsChanged {},
    Offer(Box<OfferItem>),
    OfferGeoTargets(OfferGeoTargets),
    #[serde(borrow)]
    Link(LinkLine<'a>),
    LinkOffers(LinkOffersLine),
    #[serde(borrow)]
    Conditions(ConditionsLine<'a>),
    Rule(RuleLine),
    OfferCap(Box<OfferCap>),
    End(End),
    // What an older smartlink writes.
    SmartLink(ReadLink),
    SmartLinkOffer(ReadAttachment),
    RoutingRule(RuleRow),
}

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
            "offer_caps": [{"offer_id": 10, "cap_type": "click", "cap_interval": "daily", "cap_amount": 0, "time_zone": "UTC"},
                           {"offer_id": 10, "affiliate_id": 9, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1}],
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
            assert_eq!(lines.count(), 8);
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
        let long = Lines::bounded(100).push(&[b'x'; 101]).unwrap_err();
        assert_eq!(long.to_string(), "line 1 cannot be read: it is longer than 100 bytes");
        assert!(Lines::default().push(&[b'x'; 10_000_000]).is_ok(), "its end may still come");
    }
}
