//! In which window a cap counts: the civil day, the ISO week or the civil month of the cap's zone, or all time.
//!
//! A window begins at the first moment of its first civil day. That is not always midnight: where the clocks are put
//! forward at midnight, the day begins at 01:00, and where a day was left out of the calendar, it has no window.
//! Each window ends when the next begins, to the second, so that no moment is in two windows or in none.

use jiff::ToSpan;
use jiff::civil::{Date, date};

use crate::routing::Zone;
use crate::types::{CapInterval, UnixMillis};

/// From a moment up to another, in seconds since 1970; without an end, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: i64,
    /// The first second that is no longer in the window.
    pub end: Option<i64>,
}

impl Window {
    /// All time.
    pub const LIFETIME: Window = Window { start: 0, end: None };

    /// The window that holds this moment. A moment more than 7,000 years from 1970 is taken
    /// for the nearest that is not.
    pub fn at(interval: CapInterval, zone: &Zone, at: UnixMillis) -> Self {
        let at = UnixMillis(at.0.clamp(-MOMENT_MAX, MOMENT_MAX));
        // Both are there for every moment within those years.
        let today = zone.civil(at).map_or(date(1970, 1, 1), |civil| civil.date());
        let mut first = match interval {
            CapInterval::Lifetime => return Self::LIFETIME,
            CapInterval::Daily => today,
            CapInterval::Weekly => {
                today.saturating_sub(i32::from(today.weekday().to_monday_zero_offset()).days())
            }
            CapInterval::Monthly => today.first_of_month(),
        };
        // Where the clocks are put back over midnight, they show yesterday's date once more after today has begun; and a
        // day that was left out begins when the next does. In both cases the window is a later one.
        loop {
            let next = following(interval, first);
            let (start, end) = (begins(zone, first), begins(zone, next));
            if at.seconds() < end || next == first {
                return Self { start, end: Some(end) };
            }
            first = next;
        }
    }

    /// Whether the moment is the window's end or after it.
    pub fn is_over(&self, at: UnixMillis) -> bool {
        self.end.is_some_and(|end| at.seconds() >= end)
    }

    /// How many milliseconds are left of it; `None`: it never ends.
    pub fn ends_in_ms(&self, at: UnixMillis) -> Option<u64> {
        let left = self.end?.saturating_mul(1000).saturating_sub(at.0);
        Some(u64::try_from(left).unwrap_or(0))
    }
}

/// The first day of the window after the one that begins on this day.
fn following(interval: CapInterval, first: Date) -> Date {
    match interval {
        CapInterval::Lifetime => first,
        CapInterval::Daily => first.saturating_add(1.day()),
        CapInterval::Weekly => first.saturating_add(7.days()),
        CapInterval::Monthly => first.saturating_add(1.month()),
    }
}

fn begins(zone: &Zone, day: Date) -> i64 {
    zone.day_begins(day).map_or(0, UnixMillis::seconds)
}

/// Within what jiff can tell (the years −9999 to 9999), with room for the zone and the window.
const MOMENT_MAX: i64 = 7_000 * 365 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn window(interval: CapInterval, zone: &str, moment: &str) -> (String, String) {
        let window = Window::at(interval, &Zone::parse(zone).unwrap(), at(moment));
        let text = |second| jiff::Timestamp::from_second(second).unwrap().to_string();
        (text(window.start), text(window.end.unwrap()))
    }

    #[track_caller]
    fn check(interval: CapInterval, zone: &str, moment: &str, start: &str, end: &str) {
        assert_eq!(window(interval, zone, moment), (start.to_owned(), end.to_owned()), "{zone} {moment}");
    }

    #[test]
    fn days_of_new_york_when_the_clocks_change() {
        let day = |moment, start, end| check(CapInterval::Daily, "America/New_York", moment, start, end);
        day("2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
        day("2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // The last millisecond of a day, and the first of the next.
        day("2026-06-02T03:59:59.999Z", "2026-06-01T04:00:00Z", "2026-06-02T04:00:00Z");
        day("2026-06-02T04:00:00Z", "2026-06-02T04:00:00Z", "2026-06-03T04:00:00Z");
    }

    #[test]
    fn a_day_whose_midnight_does_not_exist_begins_later() {
        let day = |zone, moment, start, end| check(CapInterval::Daily, zone, moment, start, end);
        day("America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        day("America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z");
        day("Asia/Beirut", "2022-03-27T12:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z");
        // In Toronto in 1919 the clocks went from 23:30 to 00:30.
        day("America/Toronto", "1919-03-31T12:00:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z");
        // Samoa had no 30 December 2011.
        day("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        day("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn a_day_that_is_shown_again_after_its_end_stays_ended() {
        // In St. John's the clocks went from 00:01 back to 23:01 of the day before.
        let day = |moment, start, end| check(CapInterval::Daily, "America/St_Johns", moment, start, end);
        day("2010-11-07T02:29:59Z", "2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z");
        day("2010-11-07T02:31:30Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
    }

    #[test]
    fn weeks_begin_on_monday_and_cross_years() {
        let week = |moment, start, end| check(CapInterval::Weekly, "UTC", moment, start, end);
        week("2027-01-03T23:59:59Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z");
        week("2027-01-04T00:00:00Z", "2027-01-04T00:00:00Z", "2027-01-11T00:00:00Z");
    }

    #[test]
    fn months_cross_years_and_leap_days() {
        let month = |moment, start, end| check(CapInterval::Monthly, "UTC", moment, start, end);
        month("2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        month("2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
    }

    #[test]
    fn zones_far_from_greenwich_and_between_hours() {
        let day = |zone, moment, start, end| check(CapInterval::Daily, zone, moment, start, end);
        day("Pacific/Kiritimati", "2026-12-31T10:00:00Z", "2026-12-31T10:00:00Z", "2027-01-01T10:00:00Z");
        day("Asia/Kathmandu", "2026-06-01T18:14:59Z", "2026-05-31T18:15:00Z", "2026-06-01T18:15:00Z");
        check(
            CapInterval::Monthly,
            "Pacific/Kiritimati",
            "2026-12-31T10:00:00Z",
            "2026-12-31T10:00:00Z",
            "2027-01-31T10:00:00Z",
        );
    }

    #[test]
    fn all_time_has_one_window() {
        let utc = Zone::parse("UTC").unwrap();
        for moment in [i64::MIN, 0, i64::MAX] {
            assert_eq!(Window::at(CapInterval::Lifetime, &utc, UnixMillis(moment)), Window::LIFETIME);
        }
        assert_eq!(Window::LIFETIME.ends_in_ms(UnixMillis(0)), None);
    }

    #[test]
    fn moments_beyond_the_calendar_have_a_window() {
        for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            for moment in [i64::MIN, i64::MAX] {
                let zone = Zone::parse(zone).unwrap();
                let window = Window::at(CapInterval::Monthly, &zone, UnixMillis(moment));
                assert!(window.end.unwrap() - window.start >= 28 * 86_400);
            }
        }
    }
}
