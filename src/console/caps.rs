//! Caps as bars: what is used, what nodes hold, what is left, and when it will be full if it goes on as of late.

use std::collections::HashMap;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::names::{Names, Seen, fold};
use super::paging::{Page, query};
use super::{Console, edit_cap, show};
use crate::routing::Cap;
use crate::state::{CapLevel, now};
use crate::types::{CapKey, UnixMillis};

#[derive(Template)]
#[template(path = "caps.html")]
struct Caps {
    frame: Frame,
    asked: String,
    bars: Vec<Bar>,
    page: Page,
    previous: Option<String>,
    next: Option<String>,
    total: String,
    found: String,
    problem: Option<String>,
    can_be_changed: bool,
}

/// A cap as a bar: `cap_bars.html` shows a list of them.
pub struct Bar {
    pub offer: u32,
    pub offer_name: String,
    /// A campaign cap is of one affiliate.
    pub affiliate: Option<u32>,
    pub kind: &'static str,
    pub interval: &'static str,
    pub alert_only: bool,
    pub zone: String,
    pub amount: String,
    /// `None`: the ledger does not say.
    pub filled: Option<Filled>,
}

impl Bar {
    /// As the address of its form names it.
    pub fn address(&self) -> String {
        edit_cap::address(self.offer.into(), self.affiliate.map(i64::from), self.kind, self.interval)
    }
}

/// How full a cap is.
pub struct Filled {
    pub used: String,
    pub leased: String,
    pub remaining: String,
    pub percent: String,
    pub is_full: bool,
    /// Percent of the bar's width.
    pub used_width: String,
    pub leased_width: String,
    pub window_ends: String,
    pub full: String,
    /// Of the amount, to sort by.
    share: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    q: String,
    page: String,
}

/// `GET /console/caps`
pub async fn page(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Response {
    let seen = console.names().look(&console).await;
    frame::in_turn(&console, move |console| write(console, &visitor, &asked, seen)).await
}

fn write(console: &Console, visitor: &Visitor, asked: &Asked, seen: Seen) -> Response {
    let typed = asked.q.trim();
    let (folded, number) = (fold(typed), typed.parse::<u32>().ok());
    let all = bars(console, &seen.names, |_| true);
    let total = all.len();
    let mut bars: Vec<Bar> = all
        .into_iter()
        .filter(|bar| {
            let is_number = number.is_some_and(|number| bar.offer == number || bar.affiliate == Some(number));
            typed.is_empty() || is_number || fold(&bar.offer_name).contains(&folded)
        })
        .collect();
    let page = Page::of(bars.len(), asked.page.parse().ok());
    let found = bars.len();
    bars = bars.drain(page.range()).collect();
    let href = |number: usize| query(&[("q", typed), ("page", &number.to_string())]);
    frame::page(&Caps {
        frame: Frame::new(console, visitor, Section::Caps, "Caps"),
        asked: typed.to_owned(),
        bars,
        previous: page.previous().map(href),
        next: page.next().map(href),
        page,
        total: show::count(total as u64),
        found: show::count(found as u64),
        problem: seen.problem,
        can_be_changed: seen.names.can_be_changed(),
    })
}

/// The caps that are wanted, the fullest first.
pub fn bars(console: &Console, names: &Names, is_wanted: impl Fn(&CapKey) -> bool) -> Vec<Bar> {
    let parts = console.parts();
    let (known, levels, now) = (parts.caps.borrow().all().clone(), parts.metrics.cap_levels(), now());
    let rates = console.cap_history().rates(now, &levels);
    let levels: HashMap<CapKey, &CapLevel> = levels.iter().map(|level| (level.cap, level)).collect();
    let wanted = known.iter().filter(|cap| is_wanted(&cap.key));
    let mut bars: Vec<Bar> = wanted
        .map(|cap| bar(cap, levels.get(&cap.key).copied(), rates.get(&cap.key).copied(), now, names))
        .collect();
    let share = |bar: &Bar| bar.filled.as_ref().map_or(-1.0, |filled| filled.share);
    // Stable: equals stay in the order of their names.
    bars.sort_by(|a, b| share(b).total_cmp(&share(a)));
    bars
}

fn bar(cap: &Cap, level: Option<&CapLevel>, rate: Option<f64>, now: UnixMillis, names: &Names) -> Bar {
    let CapKey { offer, affiliate, kind, interval } = cap.key;
    Bar {
        offer: offer.value(),
        offer_name: names.offer(offer.value()).map_or_else(String::new, |offer| offer.name.to_string()),
        affiliate: affiliate.map(|affiliate| affiliate.value()),
        kind: kind.as_str(),
        interval: interval.as_str(),
        alert_only: cap.alert_only,
        zone: cap.zone.name().to_owned(),
        amount: show::count(cap.amount),
        filled: level.map(|level| filled(cap, level, rate, now)),
    }
}

fn filled(cap: &Cap, level: &CapLevel, rate: Option<f64>, now: UnixMillis) -> Filled {
    // By the amount that is set; the ledger may not have heard of it yet.
    let level = CapLevel { amount: cap.amount, ..level.clone() };
    let part = |count: u64| match level.amount {
        0 => 1.0,
        amount => (count as f64 / amount as f64).min(1.0),
    };
    let used = part(level.used);
    let leased = part(level.leased).min(1.0 - used);
    let ends_in =
        level.window_ends_at.map(|ends| Duration::from_millis(u64::try_from(ends - now.0).unwrap_or(0)));
    let is_full = level.used >= level.amount;
    Filled {
        used: show::count(level.used),
        leased: show::count(level.leased),
        remaining: show::count(level.remaining()),
        percent: show::percent(Some(match level.amount {
            0 => 1.0,
            amount => level.used as f64 / amount as f64,
        })),
        is_full,
        used_width: format!("{:.2}", used * 100.0),
        leased_width: format!("{:.2}", leased * 100.0),
        window_ends: ends_in
            .map_or_else(|| "never".to_owned(), |ends_in| format!("in {}", show::duration(ends_in))),
        full: if is_full { "now".to_owned() } else { when_full(level.amount - level.used, rate, ends_in) },
        share: if level.amount == 0 { 1.0 } else { level.used as f64 / level.amount as f64 },
    }
}

/// When the rest will be used.
fn when_full(rest: u64, rate: Option<f64>, ends_in: Option<Duration>) -> String {
    match rate {
        None => "not known yet".to_owned(),
        Some(rate) if rate <= 0.0 => "not at this rate: nothing came of late".to_owned(),
        Some(rate) => {
            let full_in = Duration::try_from_secs_f64(rest as f64 / rate).unwrap_or(Duration::MAX);
            match ends_in {
                Some(ends_in) if full_in > ends_in => "not before the window ends".to_owned(),
                _ if full_in > YEARS => "in years".to_owned(),
                _ => format!("in {} at {} a second", show::duration(full_in), show::rate(rate)),
            }
        }
    }
}

const YEARS: Duration = Duration::from_secs(2 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_cap_is_full() {
        let when = |rest, rate, ends_in: Option<u64>| {
            when_full(rest, rate, ends_in.map(Duration::from_secs)).replace('\u{202f}', " ")
        };
        assert_eq!(when(100, None, None), "not known yet");
        assert_eq!(when(100, Some(0.0), Some(9)), "not at this rate: nothing came of late");
        assert_eq!(when(600, Some(2.0), Some(3600)), "in 5 min at 2.00 a second");
        assert_eq!(when(600, Some(2.0), None), "in 5 min at 2.00 a second");
        assert_eq!(when(600, Some(2.0), Some(299)), "not before the window ends");
        assert_eq!(when(u64::MAX, Some(0.001), None), "in years");
    }
}
