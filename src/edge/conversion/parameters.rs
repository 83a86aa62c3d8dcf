//! What a postback says: which click it was, and what came of it.
//!
//! A parameter that is empty was not given: advertisers fill templates, and what they do not know stays empty. Parameters of
//! other names are ignored. What is malformed or given twice is refused, because a guess would count something else.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode;

use crate::state::ConversionCount;
use crate::types::OfferId;

use super::Call;
use super::reply::{Format, Verdict};

/// The parameters of a postback, as far as they can be judged without the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postback<'a> {
    pub click_id: Cow<'a, str>,
    /// As this call names it.
    pub click_id_name: &'static str,
    pub offer: Option<OfferId>,
    /// Which of several events of a click; 0 if none is told.
    pub event: u32,
    /// Empty if none is told.
    pub transaction: Cow<'a, str>,
    pub amount: Option<Cow<'a, str>>,
}

/// The parameters as they come in, from the query and from a body.
#[derive(Debug)]
pub(super) struct Given<'a> {
    names: &'static [(&'static str, Slot)],
    values: [Option<Cow<'a, str>>; SLOTS],
}

/// Which parameter is wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParameterError {
    name: &'static str,
    problem: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    ClickId,
    Offer,
    Event,
    Transaction,
    Amount,
    Format,
}

impl<'a> Given<'a> {
    pub fn new(call: Call) -> Self {
        let names = match call {
            Call::Pixel => PIXEL_NAMES,
            Call::Json => JSON_NAMES,
        };
        Self { names, values: Default::default() }
    }

    /// Adds the parameters of a query or of a form.
    pub fn add_encoded(&mut self, text: &'a str) -> Result<(), ParameterError> {
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if self.slot(name).is_some() {
                self.add(name, decode(value))?;
            }
        }
        Ok(())
    }

    /// Adds a parameter. `None` is a value that is no text.
    pub fn add(&mut self, name: &str, value: Option<Cow<'a, str>>) -> Result<(), ParameterError> {
        let Some((name, slot)) = self.slot(name) else { return Ok(()) };
        let problem = match value {
            None => NO_TEXT,
            Some(value) => match self.values[slot as usize].replace(value) {
                None => return Ok(()),
                Some(_) => "is given more than once",
            },
        };
        Err(ParameterError { name, problem })
    }

    /// What they say together.
    pub fn read(mut self) -> Result<Postback<'a>, ParameterError> {
        let wrong = |slot, problem| ParameterError { name: self.name(slot), problem };
        let (no_click_id, click_id_name) = (wrong(Slot::ClickId, "is missing"), self.name(Slot::ClickId));
        let no_offer = wrong(
            Slot::Offer,
            "must be the id of an offer, a whole number from 1 to 4294967295, or be left out",
        );
        let no_event = wrong(Slot::Event, "must be a whole number from 0 to 4294967295");
        let no_transaction =
            wrong(Slot::Transaction, "must be a text of at most 255 bytes without control characters");
        let no_amount =
            wrong(Slot::Amount, "must be a decimal number such as 45.50, of at most 32 characters");
        let no_format = wrong(Slot::Format, "must be pb, img or js");
        let mut taken = |slot: Slot| self.values[slot as usize].take().filter(|value| !value.is_empty());

        if taken(Slot::Format).is_some_and(|format| Format::named(&format).is_none()) {
            return Err(no_format);
        }
        let offer = |text: Cow<'_, str>| OfferId::parse(text.as_bytes()).ok_or(no_offer);
        let transaction = taken(Slot::Transaction).unwrap_or_default();
        if transaction.len() > TRANSACTION_BYTES_MAX || transaction.chars().any(char::is_control) {
            return Err(no_transaction);
        }
        let amount = taken(Slot::Amount);
        if amount.as_ref().is_some_and(|amount| !is_amount(amount)) {
            return Err(no_amount);
        }
        Ok(Postback {
            click_id: taken(Slot::ClickId).ok_or(no_click_id)?,
            click_id_name,
            offer: taken(Slot::Offer).map(offer).transpose()?,
            event: taken(Slot::Event).map_or(Ok(0), |text| event(&text).ok_or(no_event))?,
            transaction,
            amount,
        })
    }

    fn slot(&self, name: &str) -> Option<(&'static str, Slot)> {
        self.names.iter().find(|(known, _)| *known == name).copied()
    }

    fn name(&self, slot: Slot) -> &'static str {
        self.names.iter().find(|(_, other)| *other == slot).map_or("", |(name, _)| name)
    }
}

impl ParameterError {
    /// The click went to another offer than the one that is named.
    pub fn other_offer() -> Self {
        Self { name: "o", problem: OTHER_OFFER }
    }
}

impl From<ParameterError> for Verdict {
    fn from(error: ParameterError) -> Self {
        let ParameterError { name, problem } = error;
        let sentence = format!("The parameter {name} {problem}.");
        Verdict::new(ConversionCount::Invalid, StatusCode::BAD_REQUEST, sentence)
    }
}

/// Percent-decodes, and `+` is a space. `None` if that is not UTF-8: two transactions must not become one.
fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|byte| byte == b'+' || byte == b'%') {
        return Some(Cow::Borrowed(raw));
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

fn event(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Digits, with perhaps a point and more digits.
fn is_amount(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= AMOUNT_CHARS_MAX && is_number(whole) && is_number(part)
}

/// CAKE's, of one letter.
const PIXEL_NAMES: &[(&str, Slot)] = &[
    ("r", Slot::ClickId),
    ("o", Slot::Offer),
    ("e", Slot::Event),
    ("t", Slot::Transaction),
    ("f", Slot::Format),
];

const JSON_NAMES: &[(&str, Slot)] = &[
    ("click_id", Slot::ClickId),
    ("event", Slot::Event),
    ("transaction_id", Slot::Transaction),
    ("amount", Slot::Amount),
];

const SLOTS: usize = 6;

const OTHER_OFFER: &str =
    "names another offer than the one that the click went to; it must be that one, or be left out";

const NO_TEXT: &str = "must be a text in UTF-8, or a number";

const TRANSACTION_BYTES_MAX: usize = 255;

const AMOUNT_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(call: Call, query: &str) -> Result<Postback<'_>, String> {
        let mut given = Given::new(call);
        given
            .add_encoded(query)
            .and_then(|()| given.read())
            .map_err(|error| format!("{} {}", error.name, error.problem))
    }

    #[test]
    fn all_that_a_postback_may_say() {
        let all = read(Call::Pixel, "o=1042&e=7&r=abc&t=A%2B1+%C3%BC&f=js&p=9").unwrap();
        assert_eq!((&*all.click_id, all.offer, all.event), ("abc", OfferId::new(1042), 7));
        assert_eq!((&*all.transaction, all.amount), ("A+1 ü", None));
        let json = read(Call::Json, "click_id=abc&amount=45.50&transaction_id=t&event=3&o=x&r=x").unwrap();
        assert_eq!((&*json.click_id, json.offer, json.event), ("abc", None, 3));
        assert_eq!((&*json.transaction, json.amount.as_deref()), ("t", Some("45.50")));
    }

    #[test]
    fn what_is_empty_was_not_given() {
        let least = read(Call::Pixel, "r=abc");
        assert_eq!(read(Call::Pixel, "o=&e=&r=abc&t=&f="), least);
        assert_eq!(least.unwrap().event, 0);
        assert!(read(Call::Json, "click_id=abc&amount=").unwrap().amount.is_none());
    }

    #[test]
    fn refusals_name_the_parameter() {
        let long = format!("r=a&t={}", "%C3%BC".repeat(128));
        let amount = format!("click_id=a&amount={}", "1".repeat(33));
        for (call, query, said) in [
            (Call::Pixel, "", "r is missing"),
            (Call::Pixel, "r=&t=1", "r is missing"),
            (Call::Pixel, "click_id=a", "r is missing"),
            (Call::Pixel, "r=a&r=a", "r is given more than once"),
            (Call::Pixel, "r=a&t=&t=", "t is given more than once"),
            (Call::Pixel, "r=%FF", "r must be a text"),
            (Call::Pixel, "r=a&t=%FF", "t must be a text"),
            (Call::Pixel, "r=a&t=%00", "t must be a text of at most 255 bytes"),
            (Call::Pixel, &long, "t must be a text of at most 255 bytes"),
            (Call::Pixel, "r=a&o=0", "o must be the id of an offer, a whole number from 1 to 4294967295"),
            (Call::Pixel, "r=a&o=x", "o must be the id of an offer"),
            (Call::Pixel, "r=a&e=-1", "e must be a whole number"),
            (Call::Pixel, "r=a&e=4294967296", "e must be a whole number"),
            (Call::Pixel, "r=a&f=gif", "f must be pb, img or js"),
            (Call::Json, "r=a", "click_id is missing"),
            (Call::Json, "click_id=a&event=one", "event must be a whole number"),
            (Call::Json, "click_id=a&amount=1e3", "amount must be a decimal number"),
            (Call::Json, "click_id=a&amount=-1", "amount must be a decimal number"),
            (Call::Json, "click_id=a&amount=.5", "amount must be a decimal number"),
            (Call::Json, &amount, "amount must be a decimal number"),
        ] {
            let refused = read(call, query).unwrap_err();
            assert!(refused.starts_with(said), "{query}: {refused}");
        }
    }
}
