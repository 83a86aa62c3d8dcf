//! Conditions: what must be true of a click for an entry to be eligible.
//!
//! A value that is not known fails `in` and passes `not_in`. Evaluation is a plain function of the condition and the
//! click; the clock and the zone data come in with them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::types::{Browser, Click, CountrySet, DeviceKind, Language, Os, Region, UnixMillis};

use super::sets::{HostSet, NameSet, NetSet, SortedSet, TextSet};

/// One condition of a rule, an offer's geo target, or an offer's expiry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The click's value is in the set, or is not.
    Value { mode: Mode, set: ValueSet },
    /// The click falls into certain hours of certain days.
    Hours(Hours),
    /// The click comes before this moment.
    Before(UnixMillis),
}

/// `in` or `not_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    In,
    NotIn,
}

/// A set of values of one property of the click.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueSet {
    Country(CountrySet),
    Region(SortedSet<Region>),
    City(NameSet),
    /// Autonomous system numbers.
    Asn(SortedSet<u32>),
    Device(Flags<DeviceKind>),
    Os(Flags<Os>),
    Browser(Flags<Browser>),
    Language(SortedSet<Language>),
    /// `s1` is index 0.
    Sub(usize, TextSet),
    ReferrerHost(HostSet),
    Ip(NetSet),
}

/// Half-open hours `from..to` on some days of the week, in a zone. `to` before `from` runs over midnight, and the
/// day is then the one on which the hours began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hours {
    /// Bit 0 is Monday.
    days: u8,
    from: MinuteOfDay,
    to: MinuteOfDay,
    zone: Zone,
}

/// Minutes since midnight, 0 to 1,440; 24:00 is an end, never a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinuteOfDay(u16);

/// An IANA time zone, from the zone data that is compiled in.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

/// Some of the values of a small enumeration, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags<T> {
    bits: u16,
    of: std::marker::PhantomData<T>,
}

impl Condition {
    /// Whether the condition is true of the click.
    #[inline]
    pub fn holds(&self, click: &Click<'_>) -> bool {
        match self {
            Condition::Value { mode, set } => match mode {
                Mode::In => set.contains(click),
                Mode::NotIn => !set.contains(click),
            },
            Condition::Hours(hours) => hours.contains(click.at),
            Condition::Before(moment) => click.at < *moment,
        }
    }

    /// The name under which a rule writes the condition.
    pub fn name(&self) -> &'static str {
        match self {
            Condition::Value { set, .. } => set.name(),
            Condition::Hours(_) => "hours",
            Condition::Before(_) => "expiration_date",
        }
    }

    /// Bytes on the heap behind the condition. Zone data is shared by all and not counted.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Condition::Value { set, .. } => set.heap_bytes(),
            Condition::Hours(_) | Condition::Before(_) => 0,
        }
    }

    /// A rough order of cost: cheap conditions are asked first.
    pub(super) fn cost(&self) -> u8 {
        match self {
            Condition::Before(_) => 0,
            Condition::Value { set, .. } => match set {
                ValueSet::Country(_) | ValueSet::Device(_) | ValueSet::Os(_) | ValueSet::Browser(_) => 1,
                ValueSet::Region(_) | ValueSet::Asn(_) | ValueSet::Language(_) => 2,
                ValueSet::Ip(_) | ValueSet::City(_) | ValueSet::Sub(..) | ValueSet::ReferrerHost(_) => 3,
            },
            Condition::Hours(_) => 4,
        }
    }
}

impl ValueSet {
    /// Whether the click's value is known and in the set.
    #[inline]
    pub fn contains(&self, click: &Click<'_>) -> bool {
        match self {
            ValueSet::Country(set) => click.place.country.is_some_and(|country| set.contains(country)),
            ValueSet::Region(set) => click.place.region.is_some_and(|region| set.contains(&region)),
            ValueSet::City(set) => click.place.city.is_some_and(|city| set.contains(city)),
            ValueSet::Asn(set) => click.place.asn.is_some_and(|asn| set.contains(&asn)),
            ValueSet::Device(set) => set.contains(click.device.kind),
            ValueSet::Os(set) => set.contains(click.device.os),
            ValueSet::Browser(set) => set.contains(click.device.browser),
            ValueSet::Language(set) => click.language.is_some_and(|language| set.contains(&language)),
            ValueSet::Sub(index, set) => click.subs[*index].is_some_and(|sub| set.contains(sub)),
            ValueSet::ReferrerHost(set) => click.referrer_host.is_some_and(|host| set.contains(host)),
            ValueSet::Ip(set) => set.contains(click.address),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            ValueSet::Country(_) | ValueSet::Device(_) | ValueSet::Os(_) | ValueSet::Browser(_) => 0,
            ValueSet::Region(set) => set.heap_bytes(),
            ValueSet::Asn(set) => set.heap_bytes(),
            ValueSet::Language(set) => set.heap_bytes(),
            ValueSet::City(set) => set.heap_bytes(),
            ValueSet::Sub(_, set) => set.heap_bytes(),
            ValueSet::ReferrerHost(set) => set.heap_bytes(),
            ValueSet::Ip(set) => set.heap_bytes(),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            ValueSet::Country(_) => "country",
            ValueSet::Region(_) => "region",
            ValueSet::City(_) => "city",
            ValueSet::Asn(_) => "asn",
            ValueSet::Device(_) => "device",
            ValueSet::Os(_) => "os",
            ValueSet::Browser(_) => "browser",
            ValueSet::Language(_) => "language",
            ValueSet::Sub(index, _) => SUB_NAMES[*index],
            ValueSet::ReferrerHost(_) => "referrer_host",
            ValueSet::Ip(_) => "ip",
        }
    }
}

impl Hours {
    /// `None` where the hours would be empty or ambiguous: no day, or `from` equal to `to`.
    pub fn new(
        days: impl IntoIterator<Item = Weekday>,
        from: MinuteOfDay,
        to: MinuteOfDay,
        zone: Zone,
    ) -> Option<Self> {
        let days = days.into_iter().fold(0, |days, day| days | day_bit(day));
        (days != 0 && from != to && from.0 < MINUTES_OF_DAY).then_some(Self { days, from, to, zone })
    }

    pub fn contains(&self, at: UnixMillis) -> bool {
        let Some(local) = self.zone.civil(at) else { return false };
        let minute = MinuteOfDay(local.hour() as u16 * 60 + local.minute() as u16);
        let today = local.weekday();
        if self.from < self.to {
            self.has(today) && self.from <= minute && minute < self.to
        } else {
            (self.has(today) && self.from <= minute) || (self.has(today.previous()) && minute < self.to)
        }
    }

    fn has(&self, day: Weekday) -> bool {
        self.days & day_bit(day) != 0
    }

    /// The days on which the hours begin, Monday first.
    pub fn days(&self) -> impl Iterator<Item = Weekday> + '_ {
        Weekday::Monday.cycle_forward().take(7).filter(|&day| self.has(day))
    }

    pub fn from(&self) -> MinuteOfDay {
        self.from
    }

    pub fn to(&self) -> MinuteOfDay {
        self.to
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }
}

impl MinuteOfDay {
    /// Reads `09:30`, and `24:00` as the end of the day.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 5 || bytes[2] != b':' {
            return None;
        }
        let two = |at: usize| {
            let (tens, ones) = (bytes[at], bytes[at + 1]);
            (tens.is_ascii_digit() && ones.is_ascii_digit())
                .then(|| u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
        };
        let (hour, minute) = (two(0)?, two(3)?);
        let total = hour * 60 + minute;
        (minute < 60 && total <= MINUTES_OF_DAY).then_some(Self(total))
    }
}

impl std::fmt::Display for MinuteOfDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Zone {
    /// Reads an IANA name such as `America/New_York`.
    pub fn parse(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the clocks of the zone show. `None` outside the years that jiff can tell (−9999 to 9999).
    pub fn civil(&self, at: UnixMillis) -> Option<DateTime> {
        let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
        Some(self.0.to_datetime(at))
    }

    /// The moment at which the zone's clocks show this. In the hour that happens twice, the earlier; in the
    /// hour that does not happen, as if the clocks had not been changed yet.
    pub fn moment(&self, civil: DateTime) -> Option<UnixMillis> {
        let at = self.0.to_timestamp(civil).ok()?;
        Some(UnixMillis(at.as_millisecond()))
    }

    /// The first moment of the day: not midnight where the clocks skip it, and that of the next day where the whole day
    /// was left out.
    pub fn day_begins(&self, day: Date) -> Option<UnixMillis> {
        let midnight = self.0.to_ambiguous_timestamp(day.to_datetime(Time::midnight()));
        let begins = match midnight.offset() {
            // By the clocks as they are afterwards, midnight was shortly before they were put forward.
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(day.to_datetime(Time::midnight())).ok()?;
                self.0.following(before).next()?.timestamp()
            }
            _ => midnight.compatible().ok()?,
        };
        Some(UnixMillis(begins.as_millisecond()))
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Zone {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl<T: Flag> Flags<T> {
    pub fn contains(&self, value: T) -> bool {
        self.bits & (1 << value.position()) != 0
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        T::values().iter().copied().filter(|&value| self.contains(value))
    }
}

impl<T: Flag> FromIterator<T> for Flags<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let bits = values.into_iter().fold(0, |bits, value| bits | 1 << value.position());
        Self { bits, of: std::marker::PhantomData }
    }
}

/// An enumeration of at most 16 values.
pub trait Flag: Copy + 'static {
    fn position(self) -> u8;
    fn values() -> &'static [Self];
}

macro_rules! flag {
    ($($name:ident),+) => { $(
        impl Flag for $name {
            fn position(self) -> u8 {
                self as u8
            }

            fn values() -> &'static [Self] {
                $name::ALL
            }
        }
    )+ };
}

flag!(DeviceKind, Os, Browser);

/// As a rule writes the days of its hours, Monday first.
pub const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn day_bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

const MINUTES_OF_DAY: u16 = 24 * 60;

const SUB_NAMES: [&str; crate::types::SUBS] = ["s1", "s2", "s3", "s4", "s5"];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn hours(days: &[Weekday], from: &str, to: &str, zone: &str) -> Hours {
        let (from, to) = (MinuteOfDay::parse(from).unwrap(), MinuteOfDay::parse(to).unwrap());
        Hours::new(days.iter().copied(), from, to, Zone::parse(zone).unwrap()).unwrap()
    }

    #[test]
    fn minutes_of_day() {
        for (text, minutes) in [("00:00", Some(0)), ("09:30", Some(570)), ("24:00", Some(1440))] {
            assert_eq!(MinuteOfDay::parse(text).map(|minute| minute.0), minutes);
        }
        for text in ["", "9:30", "09:60", "24:01", "25:00", "0930", "09:3a", "-1:00"] {
            assert_eq!(MinuteOfDay::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn hours_are_half_open_and_local() {
        // Monday 2026-06-01 in New York is UTC−4.
        let office = hours(&[Weekday::Monday], "09:00", "17:30", "America/New_York");
        for (moment, inside) in [
            ("2026-06-01T12:59:59.999Z", false),
            ("2026-06-01T13:00:00Z", true),
            ("2026-06-01T21:29:59.999Z", true),
            ("2026-06-01T21:30:00Z", false),
            ("2026-06-02T14:00:00Z", false),
        ] {
            assert_eq!(office.contains(at(moment)), inside, "{moment}");
        }
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_they_began() {
        let night = hours(&[Weekday::Friday], "22:00", "06:00", "Europe/Berlin");
        // Friday 2026-01-02, Berlin is UTC+1.
        for (moment, inside) in [
            ("2026-01-02T20:59:00Z", false),
            ("2026-01-02T21:00:00Z", true),
            ("2026-01-03T04:59:00Z", true),
            ("2026-01-03T05:00:00Z", false),
            ("2026-01-03T21:00:00Z", false),
            ("2026-01-02T03:00:00Z", false),
        ] {
            assert_eq!(night.contains(at(moment)), inside, "{moment}");
        }
    }

    #[test]
    fn hours_follow_the_clocks_when_they_change() {
        // On 2026-03-08 New York goes from UTC−5 to UTC−4 at 02:00.
        let early = hours(&[Weekday::Sunday], "03:00", "04:00", "America/New_York");
        assert!(early.contains(at("2026-03-08T07:00:00Z")));
        assert!(!early.contains(at("2026-03-08T08:00:00Z")));
        assert!(early.contains(at("2026-03-01T08:00:00Z")));
    }

    #[test]
    fn empty_and_ambiguous_hours_are_refused() {
        let minute = |text| MinuteOfDay::parse(text).unwrap();
        let utc = || Zone::parse("UTC").unwrap();
        assert!(Hours::new([], minute("09:00"), minute("10:00"), utc()).is_none());
        assert!(Hours::new([Weekday::Monday], minute("09:00"), minute("09:00"), utc()).is_none());
        assert!(Hours::new([Weekday::Monday], minute("24:00"), minute("09:00"), utc()).is_none());
        assert!(Hours::new([Weekday::Monday], minute("00:00"), minute("24:00"), utc()).is_some());
    }

    #[test]
    fn zones() {
        assert_eq!(Zone::parse("america/new_york").unwrap().name(), "America/New_York");
        assert!(Zone::parse("America/Gotham").is_none());
    }
}
