//! The lines of which there are millions: links with what is attached to them, and rules that name their conditions by
//! number.
//!
//! ```text
//! {"link":{"id":301,"affiliate_id":67890,"offers":[[1042,60,1],[1043,40,1]]}}   offer, weight, priority
//! {"link_offers":{"id":301,"offers":[[1044,10,2]]}}                            what else is attached to it
//! {"conditions":{"number":1,"conditions":{"country":{"in":["US"]}}}}           before the first rule that has them
//! {"rule":[7,301,1042,1,1,1]}                                                  rule, link, offer, weight, priority, conditions
//! ```
//!
//! A link has the status `active`, the rotation type `weighted` and `cap_aware` unless it says otherwise. Conditions 0 are
//! none; a number that is told again means the new conditions from there on, so that neither side keeps more than
//! [`CONDITIONS_MAX`]. What a line of the other version does not know, it must not pass over: a field that is unknown
//! makes the line one that cannot be read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::lines::Line;
use super::network::{Network, RuleRow, rule_id};
use super::wire::{
    ACTIVE, Conditions, FieldError, INACTIVE, RoutingRule, SmartLink, SmartLinkOffer, read_conditions,
    write_conditions,
};
use crate::routing::{Attachment, Condition, Entry, Link, Rotation};

/// A link, with the first of what is attached to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkLine<'a> {
    id: i64,
    affiliate_id: i64,
    #[serde(default = "active", skip_serializing_if = "is_active", borrow)]
    smart_link_status: Cow<'a, str>,
    #[serde(default = "weighted", skip_serializing_if = "is_weighted", borrow)]
    rotation_type: Cow<'a, str>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    cap_aware: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fallback_url: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offers: Vec<Attached>,
}

/// What else is attached to a link, or to one of which nothing else is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkOffersLine {
    id: i64,
    offers: Vec<Attached>,
}

/// Conditions, as they are told before the first rule that has them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionsLine<'a> {
    number: usize,
    #[serde(borrow)]
    conditions: &'a RawValue,
}

/// Rule, link, offer, weight, priority, and the number of its conditions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RuleLine(i64, i64, i64, i64, i64, usize);

/// Offer, weight, priority.
type Attached = (i64, i64, i64);

/// Writes links, and what is attached to them in their lines. Both come in the order of the links' ids; in another, as
/// much is told in more lines.
pub fn write_links<'a, E: From<io::Error>>(
    links: impl IntoIterator<Item = Result<LinkLine<'a>, E>>,
    attached: impl IntoIterator<Item = Result<SmartLinkOffer, E>>,
    out: &mut impl Write,
) -> Result<(), E> {
    let mut attached = attached.into_iter();
    let mut next = attached.next().transpose()?;
    // What is attached to `link`, as much of it as a line takes.
    let mut take = |link: i64, next: &mut Option<SmartLinkOffer>| -> Result<Vec<Attached>, E> {
        let mut offers = Vec::new();
        while let Some(entry) = next.take_if(|next| next.smart_link_id == link && offers.len() < LINE_OFFERS)
        {
            offers.push((entry.offer_id, entry.offer_weight, entry.priority));
            *next = attached.next().transpose()?;
        }
        Ok(offers)
    };
    for link in links {
        let mut link = link?;
        // Of links that are not told.
        while let Some(id) = next.as_ref().map(|next| next.smart_link_id).filter(|&id| id < link.id) {
            Line::LinkOffers(&LinkOffersLine { id, offers: take(id, &mut next)? }).write(out)?;
        }
        link.offers = take(link.id, &mut next)?;
        Line::Link(&link).write(out)?;
        while next.as_ref().is_some_and(|next| next.smart_link_id == link.id) {
            let offers = take(link.id, &mut next)?;
            Line::LinkOffers(&LinkOffersLine { id: link.id, offers }).write(out)?;
        }
    }
    while let Some(id) = next.as_ref().map(|next| next.smart_link_id) {
        Line::LinkOffers(&LinkOffersLine { id, offers: take(id, &mut next)? }).write(out)?;
    }
    Ok(())
}

/// Writes rules, and conditions when they are told for the first time. The numbers depend on what the conditions say and
/// not on where they are, so that equal rules give equal bytes.
#[derive(Debug, Default)]
pub struct RuleLines {
    told: HashMap<Box<str>, usize>,
    told_bytes: usize,
    /// By where conditions are in memory: those whose number is known without writing them.
    places: HashMap<usize, usize>,
}

impl RuleLines {
    /// Writes a rule whose conditions nobody looks into.
    pub fn write_row(&mut self, row: &RuleRow, out: &mut impl Write) -> io::Result<()> {
        let conditions = self.number(&row.conditions, out)?;
        let rule = RuleLine(
            row.rule_id,
            row.smart_link_id,
            row.offer_id,
            row.offer_weight,
            row.priority,
            conditions,
        );
        Line::Rule(rule).write(out)
    }

    /// All rules must live as long as the writer is used.
    pub fn write(&mut self, rule: &Entry, out: &mut impl Write) -> io::Result<()> {
        let place = rule.conditions.as_ptr().addr();
        let conditions = match self.places.get(&place) {
            // No conditions are at no particular place.
            _ if rule.conditions.is_empty() => 0,
            Some(&number) => number,
            None => {
                let text = serde_json::value::to_raw_value(&write_conditions(&rule.conditions))?;
                let number = self.number(&text, out)?;
                if self.places.len() == CONDITIONS_MAX {
                    self.places.clear();
                }
                self.places.insert(place, number);
                number
            }
        };
        let (link, offer) = (rule.link.value().into(), rule.offer.value().into());
        let (weight, priority) = (rule.weight.value().into(), rule.priority.into());
        Line::Rule(RuleLine(rule_id(rule), link, offer, weight, priority, conditions)).write(out)
    }

    /// The number of conditions, which are told first if need be.
    fn number(&mut self, conditions: &RawValue, out: &mut impl Write) -> io::Result<usize> {
        let text = conditions.get();
        if text == "{}" {
            return Ok(0);
        }
        if let Some(&number) = self.told.get(text) {
            return Ok(number);
        }
        if self.told.len() == CONDITIONS_MAX || self.told_bytes + text.len() > TOLD_BYTES_MAX {
            // From 1 again.
            self.told.clear();
            self.places.clear();
            self.told_bytes = 0;
        }
        let number = self.told.len() + 1;
        Line::Conditions(&ConditionsLine { number, conditions }).write(out)?;
        self.told.insert(text.into(), number);
        self.told_bytes += text.len();
        Ok(number)
    }
}

/// Conditions that were told, by number.
#[derive(Debug, Default)]
pub struct ToldConditions(Vec<Arc<[Condition]>>);

impl ToldConditions {
    pub fn hear(&mut self, line: &ConditionsLine<'_>) -> Result<(), FieldError> {
        let conditions: Conditions = serde_json::from_str(line.conditions.get())
            .map_err(|error| FieldError::new("conditions", format!("cannot be read: {error}")))?;
        let conditions = read_conditions(&conditions)?.into();
        let index = line.number.wrapping_sub(1);
        let next = self.0.len();
        match self.0.get_mut(index) {
            Some(known) => *known = conditions,
            None if index == next && index < CONDITIONS_MAX => self.0.push(conditions),
            None => {
                let problem = format!("is {}; expected 1 to {}", line.number, (next + 1).min(CONDITIONS_MAX));
                return Err(FieldError::new("number", problem));
            }
        }
        Ok(())
    }

    /// Reads a rule.
    pub fn rule(&self, line: RuleLine) -> Result<Entry, FieldError> {
        let RuleLine(rule_id, smart_link_id, offer_id, offer_weight, priority, number) = line;
        let rule = RoutingRule {
            rule_id,
            smart_link_id,
            offer_id,
            priority,
            offer_weight,
            // They were told before.
            conditions: Conditions::new(),
        };
        rule.read_with(|| match number {
            0 => Ok(Arc::default()),
            number => self.0.get(number - 1).cloned().ok_or_else(|| {
                FieldError::new("conditions", format!("is {number}; no conditions of that number were told"))
            }),
        })
    }
}

impl LinkLine<'_> {
    /// Reads the link, and what is attached to it, into a network.
    pub fn read(self, network: &mut Network) -> Result<(), FieldError> {
        let rotation = self.rotation_type;
        network.smart_links.push(SmartLink::read_parts(
            (self.id, self.affiliate_id),
            (&self.smart_link_status, &rotation),
            self.cap_aware,
            self.fallback_url.as_deref(),
        )?);
        LinkOffersLine { id: self.id, offers: self.offers }.read(network)
    }
}

impl LinkOffersLine {
    pub fn read(self, network: &mut Network) -> Result<(), FieldError> {
        for (offer_id, offer_weight, priority) in self.offers {
            let entry = SmartLinkOffer { smart_link_id: self.id, offer_id, offer_weight, priority };
            let entry: Attachment = entry.read().map_err(|error| {
                // A line has many.
                FieldError { problem: format!("{} (offer {offer_id})", error.problem), ..error }
            })?;
            network.smart_link_offers.push(entry);
        }
        Ok(())
    }
}

impl From<SmartLink> for LinkLine<'_> {
    fn from(link: SmartLink) -> Self {
        Self {
            id: link.smart_link_id,
            affiliate_id: link.affiliate_id,
            smart_link_status: link.smart_link_status.into(),
            rotation_type: link.rotation_type.into(),
            cap_aware: link.cap_aware,
            fallback_url: link.fallback_url.map(Cow::from),
            offers: Vec::new(),
        }
    }
}

impl<'a> From<&'a Link> for LinkLine<'a> {
    fn from(link: &'a Link) -> Self {
        Self {
            id: link.id.value().into(),
            affiliate_id: link.affiliate.value().into(),
            smart_link_status: if link.active { ACTIVE } else { INACTIVE }.into(),
            rotation_type: link.rotation.as_str().into(),
            cap_aware: link.cap_aware,
            fallback_url: link.fallback_url.as_deref().map(Cow::from),
            offers: Vec::new(),
        }
    }
}

fn active() -> Cow<'static, str> {
    ACTIVE.into()
}

fn is_active(status: &str) -> bool {
    status == ACTIVE
}

fn weighted() -> Cow<'static, str> {
    Rotation::Weighted.as_str().into()
}

fn is_weighted(rotation: &str) -> bool {
    rotation == Rotation::Weighted.as_str()
}

fn yes() -> bool {
    true
}

fn is_yes(truth: &bool) -> bool {
    *truth
}

/// How many different conditions are known by number at a time: far more than people write, and little memory.
const CONDITIONS_MAX: usize = 65_536;

/// How much text of conditions is remembered beside the item that is being told.
const TOLD_BYTES_MAX: usize = 4 << 20;

/// How many offers a line takes: a link of ten thousand must not be one long line.
const LINE_OFFERS: usize = 256;
