//! What was counted, in rows with names, in an order: what every form of the report shows.

use jiff::Timestamp;
use serde_json::Value;

use super::click::OUTCOMES;
use super::read::{Counted, Damage, Group};
use super::tally::{By, NAMES_MAX, NONE, Tally};
use crate::types::{Country, DeviceKind};

/// A report, whatever it will look like.
#[derive(Debug)]
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    pub lines: u64,
    pub left_out: u64,
    /// Milliseconds of the first and of the last click.
    pub period: Option<(i64, i64)>,
    /// What was left out, in words; empty without a filter.
    pub filter: String,
    pub all: Tally,
    pub sections: Vec<Section>,
    pub damage: Damage,
}

/// Clicks by one kind of name.
#[derive(Debug)]
pub struct Section {
    pub by: By,
    pub rows: Vec<Row>,
    pub beyond: Option<Beyond>,
}

/// Clicks of one name.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: Name,
    pub tally: Tally,
}

/// What a number of [`By`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    by: By,
    number: u32,
}

/// What has no row of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beyond {
    /// How many rows there would be. `None`: more than could be told apart.
    pub rows: Option<u64>,
    pub tally: Tally,
}

impl Report {
    /// Each section has at most `top` rows, but those by time.
    pub fn new(counted: Counted, filter: String, top: Option<usize>) -> Self {
        let Counted { files, bytes, lines, left_out, period, all, groups, damage } = counted;
        let sections = groups.into_iter().map(|group| Section::new(group, top)).collect();
        Self { files, bytes, lines, left_out, period, filter, all, sections, damage }
    }

    pub fn section(&self, by: By) -> Option<&Section> {
        self.sections.iter().find(|section| section.by == by)
    }
}

impl Section {
    fn new(Group { by, rows, other }: Group, top: Option<usize>) -> Self {
        let mut rows: Vec<Row> =
            rows.into_iter().map(|(number, tally)| Row { name: Name { by, number }, tally }).collect();
        // The most first; times as they come.
        rows.sort_unstable_by(|one, other| {
            let by_clicks = || other.tally.clicks().cmp(&one.tally.clicks());
            let by_lines = || other.tally.lines().cmp(&one.tally.lines());
            let by_number = one.name.number.cmp(&other.name.number);
            if by.is_time() { by_number } else { by_clicks().then_with(by_lines).then(by_number) }
        });
        let top = top.filter(|_| !by.is_time()).unwrap_or(usize::MAX).min(rows.len());
        let folded = rows.split_off(top);
        let is_crowded = other.lines() > 0;
        let mut beyond = Beyond { rows: (!is_crowded).then_some(folded.len() as u64), tally: other };
        folded.iter().for_each(|row| beyond.tally.merge(&row.tally));
        Self { by, rows, beyond: (is_crowded || !folded.is_empty()).then_some(beyond) }
    }

    /// The outcomes that occur, but an offer; as positions in [`OUTCOMES`].
    pub fn fallbacks(all: &Tally) -> Vec<usize> {
        (1..OUTCOMES.len()).filter(|&outcome| all.outcomes[outcome] > 0).collect()
    }
}

impl Beyond {
    /// `other (12 more)`.
    pub fn name(&self) -> String {
        match self.rows {
            Some(rows) => format!("other ({rows} more)"),
            None => format!("other (beyond {NAMES_MAX})"),
        }
    }
}

impl Name {
    /// As a person reads it: `301`, `none`, `2026-11-22T20`.
    pub fn shown(self) -> String {
        match self.by {
            By::Offer | By::Country if self.number == NONE => "none".to_owned(),
            By::Link | By::Affiliate | By::Offer => self.number.to_string(),
            By::Day | By::Hour | By::Minute => self.time()[..self.by.time_width()].to_owned(),
            By::Outcome | By::Country | By::Device => self.text().to_owned(),
        }
    }

    /// As a program reads it: ids are numbers, times are RFC 3339, nothing is null.
    pub fn value(self) -> Value {
        match self.by {
            By::Offer | By::Country if self.number == NONE => Value::Null,
            By::Link | By::Affiliate | By::Offer => self.number.into(),
            By::Day | By::Hour | By::Minute => self.time().into(),
            By::Outcome | By::Country | By::Device => self.text().into(),
        }
    }

    /// What a reader may not know: the name of a country by its code.
    pub fn explained(self) -> Option<&'static str> {
        self.country().map(Country::name)
    }

    /// Of a time, the second that it begins with.
    pub fn second(self) -> i64 {
        i64::from(self.number) * i64::from(self.by.step_seconds().unwrap_or_default())
    }

    fn text(self) -> &'static str {
        let position = self.number as usize;
        match self.by {
            By::Outcome => OUTCOMES.get(position).copied().unwrap_or_default(),
            By::Device => DeviceKind::ALL.get(position).map_or("", |device| device.as_str()),
            _ => self.country().map_or("", Country::as_str),
        }
    }

    fn country(self) -> Option<Country> {
        let position = (self.by == By::Country).then(|| self.number.checked_sub(1)).flatten()?;
        Country::all().nth(position as usize)
    }

    fn time(self) -> String {
        spell_time(self.second() * 1000)
    }
}

impl By {
    /// The heading of its names, which is that of the log where it has them.
    pub const fn heading(self) -> &'static str {
        match self {
            By::Outcome => "outcome",
            By::Link => "smart_link_id",
            By::Affiliate => "affiliate_id",
            By::Offer => "offer_id",
            By::Country => "country",
            By::Device => "device",
            By::Day => "day",
            By::Hour => "hour",
            By::Minute => "minute",
        }
    }

    /// As it is typed.
    pub const fn as_str(self) -> &'static str {
        match self {
            By::Link => "link",
            By::Affiliate => "affiliate",
            By::Offer => "offer",
            by => by.heading(),
        }
    }

    /// How much of `2026-11-22T20:15:00Z` it is.
    const fn time_width(self) -> usize {
        match self {
            By::Day => 10,
            By::Hour => 13,
            _ => 16,
        }
    }
}

/// `2026-11-22T20:15:30Z`.
pub fn spell_time(millis: i64) -> String {
    let time = Timestamp::from_second(millis.div_euclid(1000)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(offers: u64) -> Tally {
        let mut tally = Tally::default();
        tally.outcomes[0] = offers;
        tally
    }

    #[test]
    fn the_most_come_first_and_the_rest_is_one_row() {
        let rows = || vec![(5, tally(1)), (6, tally(9)), (7, tally(3)), (4, tally(3))];
        let section = |by, other| Section::new(Group { by, rows: rows(), other }, Some(2));
        let shown =
            |section: &Section| section.rows.iter().map(|row| row.name.shown()).collect::<Vec<_>>().join(" ");
        let few = section(By::Link, Tally::default());
        assert_eq!(shown(&few), "6 4");
        let beyond = few.beyond.unwrap();
        assert_eq!((beyond.name(), beyond.tally.clicks()), ("other (2 more)".to_owned(), 4));
        let crowded = section(By::Link, tally(2));
        let beyond = crowded.beyond.unwrap();
        assert_eq!((beyond.name(), beyond.tally.clicks()), ("other (beyond 131072)".to_owned(), 6));
        let times = section(By::Minute, Tally::default());
        assert_eq!(times.rows[0].name.shown(), "1970-01-01T00:04");
        assert!(times.rows.len() == 4 && times.beyond.is_none());
    }

    #[test]
    fn names_for_people_and_for_programs() {
        let country = Country::parse("DE").unwrap().cake_id();
        for (by, number, shown, value) in [
            (By::Outcome, 8, "location_too_long", "\"location_too_long\""),
            (By::Link, 301, "301", "301"),
            (By::Offer, NONE, "none", "null"),
            (By::Country, country, "DE", "\"DE\""),
            (By::Country, NONE, "none", "null"),
            (By::Device, 1, "mobile", "\"mobile\""),
            (By::Day, 20_779, "2026-11-22", "\"2026-11-22T00:00:00Z\""),
            (By::Hour, 498_716, "2026-11-22T20", "\"2026-11-22T20:00:00Z\""),
            (By::Minute, 29_922_975, "2026-11-22T20:15", "\"2026-11-22T20:15:00Z\""),
        ] {
            let name = Name { by, number };
            assert_eq!((name.shown().as_str(), name.value().to_string().as_str()), (shown, value), "{by:?}");
        }
        assert_eq!(Name { by: By::Country, number: country }.explained(), Some("Germany"));
    }
}
