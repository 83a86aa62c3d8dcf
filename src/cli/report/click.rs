//! A line of the click log as it is counted: numbers alone, each of which is known to mean something.

use std::collections::HashSet;

use crate::clicklog::{Entry, beginning};
use crate::routing::Outcome;
use crate::types::{Country, DeviceKind};

/// What a line says, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click {
    /// Milliseconds since 1970, never negative.
    pub at: i64,
    /// A position in [`OUTCOMES`].
    pub outcome: usize,
    pub link: u32,
    pub affiliate: u32,
    pub offer: Option<u32>,
    pub country: Option<Country>,
    pub device: DeviceKind,
    pub by: ClickedBy,
}

/// Who clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickedBy {
    Person,
    Bot,
    /// A bot's, too.
    Probe,
}

/// Which clicks are counted. An empty set is no condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// From this millisecond on.
    pub since: Option<i64>,
    /// Up to this millisecond, without it.
    pub until: Option<i64>,
    pub links: HashSet<u32>,
    pub affiliates: HashSet<u32>,
    pub offers: HashSet<u32>,
    pub countries: HashSet<Country>,
}

impl Click {
    /// `Err`: why the line is not counted.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let entry = Entry::read(line).map_err(|why| why.to_string())?;
        let unknown =
            |what: &str, value: &str| format!("{what} {:?} is none that is known here", beginning(value));
        let at = entry.at()?.as_millisecond();
        if at < 0 {
            return Err("time is before 1970".to_owned());
        }
        let outcome = OUTCOMES.iter().position(|outcome| *outcome == entry.outcome);
        let read_country = |code| Country::parse(code).ok_or_else(|| unknown("country", code));
        Ok(Self {
            at,
            outcome: outcome.ok_or_else(|| unknown("outcome", entry.outcome))?,
            link: entry.smart_link_id,
            affiliate: entry.affiliate_id,
            offer: entry.offer_id,
            country: entry.country.map(read_country).transpose()?,
            device: DeviceKind::parse(entry.device).ok_or_else(|| unknown("device", entry.device))?,
            by: match (entry.probe, entry.bot) {
                (true, _) => ClickedBy::Probe,
                (false, true) => ClickedBy::Bot,
                (false, false) => ClickedBy::Person,
            },
        })
    }

    /// Whether the id of the link is one that the network has. Another is whatever a visitor typed.
    pub fn has_known_link(&self) -> bool {
        self.outcome != UNKNOWN_LINK
    }

    /// Whether the affiliate was held against the link.
    pub fn has_known_affiliate(&self) -> bool {
        ![UNKNOWN_LINK, Outcome::InactiveLink as usize, Outcome::AffiliateMismatch as usize]
            .contains(&self.outcome)
    }
}

impl Filter {
    pub fn takes(&self, click: &Click) -> bool {
        let among = |wanted: &HashSet<u32>, id: Option<u32>| {
            wanted.is_empty() || id.is_some_and(|id| wanted.contains(&id))
        };
        self.since.is_none_or(|since| click.at >= since)
            && self.until.is_none_or(|until| click.at < until)
            && among(&self.links, Some(click.link))
            && among(&self.affiliates, Some(click.affiliate))
            && among(&self.offers, click.offer)
            && (self.countries.is_empty()
                || click.country.is_some_and(|country| self.countries.contains(&country)))
    }
}

/// Every outcome that a line may have. The first is an offer; of a person's click, the others are a fallback.
pub const OUTCOMES: [&str; Outcome::ALL.len() + 1] = {
    let mut names = ["location_too_long"; Outcome::ALL.len() + 1];
    let mut position = 0;
    while position < Outcome::ALL.len() {
        names[position] = Outcome::ALL[position].as_str();
        position += 1;
    }
    names
};

/// Its position in [`OUTCOMES`].
pub const OFFER: usize = Outcome::Offer as usize;

const UNKNOWN_LINK: usize = Outcome::UnknownLink as usize;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"click_id":"c","time":"2026-11-22T20:15:30.123Z","outcome":"capped","smart_link_id":301,"affiliate_id":7,"offer_id":null,"country":"US","device":"mobile","bot":false,"probe":false}"#;

    #[test]
    fn a_line_is_read() {
        let click = Click::read(LINE.as_bytes()).unwrap();
        assert_eq!((click.at, OUTCOMES[click.outcome]), (1_795_378_530_123, "capped"));
        assert_eq!((click.link, click.affiliate, click.offer, click.by), (301, 7, None, ClickedBy::Person));
        assert_eq!(Click::read(format!("{LINE}\r").as_bytes()).unwrap(), click);
        assert_eq!(OUTCOMES[OFFER], "offer");
    }

    #[test]
    fn what_cannot_be_counted_is_told_why() {
        let with = |from: &str, to: &str| LINE.replace(from, to).into_bytes();
        for (line, why) in [
            (b"\r".to_vec(), "this line is empty"),
            (
                LINE.as_bytes()[..40].to_vec(),
                "this line is cut off, or longer than any of a click log: after byte 40 its JSON object has not ended",
            ),
            (
                b"{}".to_vec(),
                "this is no line of a click log: it has no field click_id; expected a text in quotes",
            ),
            (
                with("\"2026-11-22T20:15:30.123Z\"", "\"yesterday\""),
                "time \"yesterday\" is none; expected one such as 2026-11-22T20:15:30.123Z",
            ),
            (with("2026-11-22T", "1926-11-22T"), "time is before 1970"),
            (with("capped", "eaten"), "outcome \"eaten\" is none that is known here"),
            (with("\"US\"", "\"ZZ\""), "country \"ZZ\" is none that is known here"),
            (with("mobile", "toaster"), "device \"toaster\" is none that is known here"),
        ] {
            assert_eq!(Click::read(&line).unwrap_err(), why, "{:?}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn a_filter_takes_what_has_all_that_is_wanted() {
        let click = Click::read(LINE.as_bytes()).unwrap();
        let all = Filter::default();
        assert!(all.takes(&click));
        for (filter, is_taken) in [
            (Filter { since: Some(click.at), ..all.clone() }, true),
            (Filter { since: Some(click.at + 1), ..all.clone() }, false),
            (Filter { until: Some(click.at), ..all.clone() }, false),
            (Filter { until: Some(click.at + 1), ..all.clone() }, true),
            (Filter { links: [300, 301].into(), ..all.clone() }, true),
            (Filter { links: [300].into(), ..all.clone() }, false),
            (Filter { affiliates: [7].into(), ..all.clone() }, true),
            (Filter { offers: [7].into(), ..all.clone() }, false),
            (Filter { countries: Country::parse("US").into_iter().collect(), ..all.clone() }, true),
            (Filter { countries: Country::parse("DE").into_iter().collect(), ..all.clone() }, false),
        ] {
            assert_eq!(filter.takes(&click), is_taken, "{filter:?}");
        }
    }
}
