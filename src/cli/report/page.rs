//! The report as a page: one file that needs no other, and nothing of the internet.
//!
//! Texts are escaped by the template. The script is the page's own, and the page says by a policy that no other may run, whatever
//! stands in it.

use askama::Template;
use indicatif::DecimalBytes;

use super::click::OUTCOMES;
use super::json;
use super::read::NAMED_MAX;
use super::rows::{Report, Row, Section, spell_time};
use super::table::percent;
use super::tally::{By, Tally, ratio};

/// What it has tables for.
pub const TABLES: [By; 6] = [By::Outcome, By::Link, By::Offer, By::Affiliate, By::Country, By::Device];

/// And what its charts are made from: the finest that makes no more points than can be looked at.
pub const TIMES: [By; 3] = [By::Minute, By::Hour, By::Day];

#[derive(Template)]
#[template(path = "report.html", whitespace = "minimize")]
struct Page {
    sentence: String,
    /// From when to when, of what.
    about: String,
    filter: String,
    figures: Vec<Figure>,
    damage: Vec<String>,
    damage_sentence: String,
    /// Or there is nothing to draw.
    has_clicks: bool,
    step: &'static str,
    series: String,
    bars: Vec<Bar>,
    tables: Vec<Table>,
    /// The mark of scripts that may run.
    nonce: String,
    version: &'static str,
}

struct Figure {
    name: &'static str,
    value: String,
    note: String,
}

/// What became of clicks.
struct Bar {
    name: String,
    count: String,
    share: String,
    width: String,
    is_offer: bool,
}

struct Table {
    title: &'static str,
    heading: &'static str,
    has_fill_rate: bool,
    reasons: Vec<String>,
    rows: Vec<Cells>,
}

struct Cells {
    name: String,
    explained: &'static str,
    is_other: bool,
    clicks: String,
    share: String,
    share_width: String,
    offers: String,
    fill_rate: String,
    fill_width: String,
    reasons: Vec<String>,
    probes: String,
    bots: String,
}

/// The whole file.
pub fn write(report: &Report) -> anyhow::Result<String> {
    let (step, series) = series(report);
    let by_outcome = report.section(By::Outcome);
    let page = Page {
        sentence: sentence(report),
        about: about(report),
        filter: report.filter.clone(),
        figures: figures(&report.all),
        damage: report.damage.named.iter().map(ToString::to_string).collect(),
        damage_sentence: damage_sentence(report),
        has_clicks: report.all.clicks() > 0,
        step,
        nonce: blake3::hash(series.as_bytes()).to_hex()[..32].to_owned(),
        series,
        bars: by_outcome.map(|_| bars(&report.all)).unwrap_or_default(),
        tables: (report.sections.iter())
            .filter(|section| section.by != By::Outcome && !section.by.is_time() && !section.rows.is_empty())
            .map(|section| table(section, &report.all))
            .collect(),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(page.render()?)
}

/// What the page says first.
pub fn sentence(report: &Report) -> String {
    match report.all.fill_rate() {
        Some(rate) => {
            format!("{} of {} reached an offer", percent(Some(rate)), many(report.all.clicks(), "click"))
        }
        None => "No click was counted".to_owned(),
    }
}

fn about(report: &Report) -> String {
    let size = DecimalBytes(report.bytes);
    let read = format!("{} in {} ({size})", many(report.lines, "line"), many(report.files, "file"));
    let left_out = match report.left_out {
        0 => String::new(),
        lines => format!(", {} of them left out by the filter", grouped(lines)),
    };
    let period = report.period.map_or_else(String::new, |(first, last)| {
        let spell = |millis| spell_time(millis).replace('T', " ").replace('Z', "");
        format!("{} to {} UTC · ", spell(first), spell(last))
    });
    format!("{period}{read}{left_out}")
}

fn damage_sentence(report: &Report) -> String {
    let damage = &report.damage;
    let counts = [(damage.lines, "line"), (damage.files, "file")].into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, noun)| many(count, noun)).collect();
    let first = if damage.lines + damage.files > NAMED_MAX as u64 { "; the first of them:" } else { ":" };
    format!("Not counted: {}, which could not be read{first}", counts.join(" and "))
}

fn figures(all: &Tally) -> Vec<Figure> {
    let of_clicks = |part| ratio(part, all.clicks()).map_or_else(String::new, |share| percent(Some(share)));
    let of_lines = |part| {
        ratio(part, all.lines())
            .map_or_else(String::new, |share| format!("{} of all lines", percent(Some(share))))
    };
    [
        ("Clicks of persons", all.clicks(), of_lines(all.clicks())),
        ("To an offer", all.offers(), of_clicks(all.offers())),
        ("To a fallback", all.fallbacks(), of_clicks(all.fallbacks())),
        ("Probes", all.probes, of_lines(all.probes)),
        ("Bots", all.bots, of_lines(all.bots)),
    ]
    .map(|(name, count, note)| Figure { name, value: grouped(count), note })
    .into()
}

fn bars(all: &Tally) -> Vec<Bar> {
    let mut outcomes: Vec<usize> = (0..OUTCOMES.len()).filter(|&outcome| all.outcomes[outcome] > 0).collect();
    outcomes.sort_by_key(|&outcome| (outcome != 0, std::cmp::Reverse(all.outcomes[outcome])));
    let bar = |outcome: usize| {
        let share = ratio(all.outcomes[outcome], all.clicks());
        Bar {
            name: OUTCOMES[outcome].replace('_', " "),
            count: grouped(all.outcomes[outcome]),
            share: percent(share),
            width: width(share),
            is_offer: outcome == 0,
        }
    };
    outcomes.into_iter().map(bar).collect()
}

fn table(section: &Section, all: &Tally) -> Table {
    // Who asks for clicks by offer knows what became of them.
    let has_fill_rate = section.by != By::Offer;
    let fallbacks = if has_fill_rate { Section::fallbacks(all) } else { Vec::new() };
    let cells = |name: String, row: Option<&Row>, tally: &Tally| {
        let share = ratio(tally.clicks(), all.clicks());
        Cells {
            name,
            explained: row.and_then(|row| row.name.explained()).unwrap_or_default(),
            is_other: row.is_none(),
            clicks: grouped(tally.clicks()),
            share: percent(share),
            share_width: width(share),
            offers: grouped(tally.offers()),
            fill_rate: percent(tally.fill_rate()),
            fill_width: width(tally.fill_rate()),
            reasons: fallbacks.iter().map(|&outcome| or_dash(tally.outcomes[outcome])).collect(),
            probes: or_dash(tally.probes),
            bots: or_dash(tally.bots),
        }
    };
    let rows = section.rows.iter().map(|row| cells(row.name.shown(), Some(row), &row.tally));
    let beyond = section.beyond.iter().map(|beyond| cells(beyond.name(), None, &beyond.tally));
    Table {
        title: match section.by {
            By::Link => "Links",
            By::Affiliate => "Affiliates",
            By::Offer => "Offers",
            By::Country => "Countries",
            By::Device => "Devices",
            by => by.heading(),
        },
        heading: section.by.heading(),
        has_fill_rate,
        reasons: fallbacks.iter().map(|&outcome| OUTCOMES[outcome].replace('_', " ")).collect(),
        rows: rows.chain(beyond).collect(),
    }
}

/// The step in words, and the points.
fn series(report: &Report) -> (&'static str, String) {
    let span = report.period.map_or(0, |(first, last)| (last - first) / 1000);
    let is_fit = |by: &By| {
        let step = i64::from(by.step_seconds().unwrap_or(u32::MAX));
        span / step <= POINTS_MAX && report.section(*by).is_some_and(|section| section.beyond.is_none())
    };
    let by = TIMES.into_iter().find(is_fit).unwrap_or(By::Day);
    let step = by.step_seconds().unwrap_or_default();
    let rows = report.section(by).map_or(&[][..], |section| &section.rows);
    (by.heading(), json::series(step, &without_gaps(rows, i64::from(step))))
}

/// A point for every step, unless there would be too many.
fn without_gaps(rows: &[Row], step: i64) -> Vec<(i64, Tally)> {
    let mut points: Vec<(i64, Tally)> = Vec::new();
    for row in rows {
        let second = row.name.second();
        if let Some(&(last, _)) = points.last()
            && (second - last) / step <= POINTS_MAX
        {
            points.extend((last + step..second).step_by(step as usize).map(|gap| (gap, Tally::default())));
        }
        points.push((second, row.tally));
    }
    points
}

/// Where most are nothing, what is something is found.
fn or_dash(count: u64) -> String {
    if count == 0 { "–".to_owned() } else { grouped(count) }
}

/// `1 click`, `1,234 clicks`.
fn many(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `1,234,567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Of a bar.
fn width(share: Option<f64>) -> String {
    format!("{:.2}%", 100.0 * share.unwrap_or_default())
}

/// Two months of hours, a day of minutes.
const POINTS_MAX: i64 = 62 * 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
        assert_eq!((many(1, "line"), many(2_000, "line")), ("1 line".to_owned(), "2,000 lines".to_owned()));
    }
}
