//! The first page: how many clicks, how many of them an offer took, and whether what routes them is fresh.

use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::history::{Sample, Span};
use super::{Console, show};
use crate::lookup::GeoDb;
use crate::state::{ClickCounts, Totals, now};
use crate::types::UnixMillis;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    span: Span,
    clicks_per_second: String,
    clicks_over: String,
    fill_rates: Vec<FillRate>,
    outcomes: Vec<Outcome>,
    states: Vec<Fact>,
    /// The charts' figures, for those who do not see them.
    figures: Vec<Figure>,
}

/// The fill rate over some time.
struct FillRate {
    over: String,
    rate: String,
    clicks: String,
}

/// A row of the table of outcomes.
struct Outcome {
    name: &'static str,
    meaning: &'static str,
    minute: String,
    hour: String,
    all: String,
}

/// Something that may be well or not.
struct Fact {
    name: &'static str,
    value: String,
    level: Level,
    /// What it means, if it is not well.
    note: String,
}

/// Shown by a word and a shape, and by a colour besides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Well,
    Note,
    Ill,
}

impl Level {
    fn class(self) -> &'static str {
        match self {
            Level::Well => "well",
            Level::Note => "note",
            Level::Ill => "ill",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Level::Well => "ok",
            Level::Note => "look",
            Level::Ill => "bad",
        }
    }
}

/// A row of the table beside the charts.
struct Figure {
    at: String,
    clicks: String,
    fill_rate: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    span: String,
}

impl Asked {
    fn span(&self) -> Span {
        Span::parse(&self.span).unwrap_or(Span::Hour)
    }
}

/// `GET /console`
pub async fn to_the_page() -> Redirect {
    Redirect::to(frame::HOME)
}

/// `GET /console/`
pub async fn page(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Response {
    frame::in_turn(&console, move |console| write(console, &visitor, &asked)).await
}

fn write(console: &Console, visitor: &Visitor, asked: &Asked) -> Response {
    let (now, totals) = (now(), console.parts().metrics.totals());
    let since = |age: Duration| console.history().before(now, age);
    let over = [60, 300, 3600, 86_400].map(Duration::from_secs);
    let [minute, five, hour, day] = over.map(since);
    let minute_counts = counts_since(minute, &totals);
    let hour_counts = counts_since(hour, &totals);
    let seconds = minute.map_or(0.0, |sample| (now.0 - sample.at.0) as f64 / 1000.0);
    let age = |sample: Option<Sample>| {
        let millis = sample.map_or(0, |sample| now.0 - sample.at.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    };
    let fill_rate = |over: Duration, sample: Option<Sample>| {
        let counts = counts_since(sample, &totals);
        FillRate {
            over: show::duration(over.min(age(sample))),
            rate: show::percent(counts.fill_rate()),
            clicks: show::count(counts.to_offers() + counts.to_fallbacks()),
        }
    };
    let mut fill_rates = vec![fill_rate(over[1], five), fill_rate(over[2], hour), fill_rate(over[3], day)];
    // A young process has no whole day to tell of.
    fill_rates.dedup_by(|longer, shorter| longer.over == shorter.over);
    let span = asked.span();
    frame::page(&Overview {
        frame: Frame::new(console, visitor, Section::Overview, "Overview").with_charts(),
        span,
        clicks_per_second: show::rate(per_second(minute_counts.all(), seconds)),
        fill_rates,
        clicks_over: show::duration(over[0].min(age(minute))),
        outcomes: outcomes(&minute_counts, &hour_counts, &totals.clicks),
        states: states(console, now, &totals),
        figures: figures(&console.history().samples(span), span),
    })
}

/// What the charts draw: columns of equal length.
#[derive(Default, Serialize)]
pub struct Series {
    /// Seconds since 1970: the ends of the intervals.
    at: Vec<f64>,
    /// A second, in each interval.
    offers: Vec<f64>,
    fallbacks: Vec<f64>,
    others: Vec<f64>,
    /// Percent; none where no click came that counts.
    fill_rate: Vec<Option<f64>>,
}

/// `GET /console/overview.json`
pub async fn series(State(console): State<Console>, Query(asked): Query<Asked>) -> Response {
    frame::in_turn(&console, move |console| Json(series_of(console, &asked)).into_response()).await
}

fn series_of(console: &Console, asked: &Asked) -> Series {
    let samples = console.history().samples(asked.span());
    let mut series = Series::default();
    for pair in samples.windows(2) {
        let counts = pair[1].totals.clicks.since(&pair[0].totals.clicks);
        let seconds = (pair[1].at.0 - pair[0].at.0) as f64 / 1000.0;
        let (offers, fallbacks) = (counts.to_offers(), counts.to_fallbacks());
        series.at.push(pair[1].at.0 as f64 / 1000.0);
        series.offers.push(per_second(offers, seconds));
        series.fallbacks.push(per_second(fallbacks, seconds));
        series.others.push(per_second(counts.all() - offers - fallbacks, seconds));
        series.fill_rate.push(counts.fill_rate().map(|rate| rate * 100.0));
    }
    series
}

fn counts_since(sample: Option<Sample>, totals: &Totals) -> ClickCounts {
    sample.map_or(totals.clicks, |sample| totals.clicks.since(&sample.totals.clicks))
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn outcomes(minute: &ClickCounts, hour: &ClickCounts, all: &ClickCounts) -> Vec<Outcome> {
    all.each()
        .map(|(count, total)| Outcome {
            name: count.as_str(),
            meaning: meaning(count.as_str()),
            minute: show::count(minute.of(count)),
            hour: show::count(hour.of(count)),
            all: show::count(total),
        })
        .collect()
}

fn meaning(outcome: &str) -> &'static str {
    match outcome {
        "offer" => "sent to an offer",
        "unknown_link" => "no link of this id is live",
        "inactive_link" => "the link is switched off",
        "affiliate_mismatch" => "the link is another affiliate’s",
        "bot" => "no person’s click; in no fill rate",
        "no_offers" => "nothing is attached to the link",
        "no_match" => "no entry takes such a visitor",
        "capped" => "every entry that would is closed by a cap",
        "probe" => "HEAD, prefetch or preview; in no fill rate",
        "location_too_long" => "the finished URL was over 8 KiB",
        "invalid" => "refused: the request was malformed",
        "unrecorded" => "refused: the click log was full",
        _ => "",
    }
}

fn states(console: &Console, now: UnixMillis, totals: &Totals) -> Vec<Fact> {
    let parts = console.parts();
    let live = parts.table.current();
    let fact = |name, value: String, level, note: &str| Fact { name, value, level, note: note.to_owned() };
    let ready = match parts.readiness.unready_because() {
        None => fact("Node", "ready".to_owned(), Level::Well, ""),
        Some(why) => {
            fact("Node", format!("not ready: {why}"), Level::Ill, "load balancers send no clicks here")
        }
    };
    let confirmed = parts.table.confirmed_at();
    let snapshot = match live.generation {
        0 => {
            fact("Snapshot", "none yet".to_owned(), Level::Ill, "every click goes to the network’s fallback")
        }
        _ if now.0 - confirmed.0 > STALE.as_millis() as i64 => fact(
            "Snapshot",
            format!("confirmed {}", show::ago(confirmed, now)),
            Level::Ill,
            "the upstream has not confirmed it for long; clicks are routed by what was known",
        ),
        _ => fact("Snapshot", format!("confirmed {}", show::ago(confirmed, now)), Level::Well, ""),
    };
    let quarantined = parts.metrics.snapshot_quarantined.get().unsigned_abs();
    let left_out = match quarantined {
        0 => fact("Left out of it", "nothing".to_owned(), Level::Well, ""),
        count => {
            fact("Left out of it", show::count(count), Level::Note, "items that cannot be used as they are")
        }
    };
    let ledger = match (live.caps.len(), parts.metrics.ledger_reachable.get()) {
        (0, _) => fact("Ledger of caps", "no caps".to_owned(), Level::Well, ""),
        (_, 1) => fact("Ledger of caps", "answers".to_owned(), Level::Well, ""),
        (_, _) => {
            let note = "capped offers close when what this node holds of them is spent";
            fact("Ledger of caps", "away".to_owned(), Level::Ill, note)
        }
    };
    let geo = match &parts.geo.current().places {
        None => fact("Geo database", "none".to_owned(), Level::Note, "no visitor’s country is known"),
        Some(places) if places.database_type() == GeoDb::demo().database_type() => {
            fact("Geo database", "demonstration".to_owned(), Level::Note, "it knows no real visitor")
        }
        Some(places) => {
            let built = UnixMillis(i64::try_from(places.build_epoch() * 1000).unwrap_or(i64::MAX));
            let is_old = now.0 - built.0 > GEO_OLD.as_millis() as i64;
            let (level, note) = match is_old {
                true => (Level::Note, "addresses move; load a newer one"),
                false => (Level::Well, ""),
            };
            fact("Geo database", format!("made {}", show::ago(built, now)), level, note)
        }
    };
    let dropped = match totals.log_dropped {
        0 => fact("Click log", "nothing dropped".to_owned(), Level::Well, ""),
        count => fact(
            "Click log",
            format!("{} dropped", show::count(count)),
            Level::Ill,
            "clicks were redirected and not written down, since the process began",
        ),
    };
    let certificate = parts.metrics.certificate_expires_at().map(|expires| {
        let left = Duration::from_secs(u64::try_from(expires - now.seconds()).unwrap_or(0));
        let value = format!("expires in {}", show::duration(left));
        match left {
            left if left.is_zero() => fact(
                "Certificate",
                "expired".to_owned(),
                Level::Ill,
                "browsers refuse the click listeners with TLS",
            ),
            left if left < EXPIRES_SOON => fact("Certificate", value, Level::Note, "renew it"),
            _ => fact("Certificate", value, Level::Well, ""),
        }
    });
    let connections = fact("Connections", show::count(totals.connections), Level::Well, "");
    let links = format!(
        "{}, {} entries",
        show::count(live.table.links() as u64),
        show::count(live.table.entries() as u64)
    );
    let links = fact("Links", links, Level::Well, "");
    let facts = [ready, snapshot, links, left_out, ledger, geo, dropped];
    facts.into_iter().chain(certificate).chain([connections]).collect()
}

/// Some rows of what the charts show, the newest first.
fn figures(samples: &[Sample], span: Span) -> Vec<Figure> {
    let every = match span {
        Span::Hour => 24,
        Span::Day => 30,
    };
    let newest_first: Vec<&Sample> = samples.iter().rev().step_by(every).collect();
    newest_first
        .windows(2)
        .map(|pair| {
            let counts = pair[0].totals.clicks.since(&pair[1].totals.clicks);
            let seconds = (pair[0].at.0 - pair[1].at.0) as f64 / 1000.0;
            Figure {
                at: show::moment(pair[0].at),
                clicks: show::rate(per_second(counts.all(), seconds)),
                fill_rate: show::percent(counts.fill_rate()),
            }
        })
        .collect()
}

/// Longer than what renews it needs to be looked after.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Twenty refreshes at the default interval.
const STALE: Duration = Duration::from_secs(300);

/// Databases come weekly or more often.
const GEO_OLD: Duration = Duration::from_secs(60 * 86_400);
