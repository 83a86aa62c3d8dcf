//! The report for programs: one JSON object.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::click::OUTCOMES;
use super::read::{Damage, Named};
use super::rows::{Report, Section, spell_time};
use super::tally::{Tally, ratio};

/// What is told of all of it.
#[derive(Serialize)]
struct Head {
    first_click: Option<String>,
    last_click: Option<String>,
    files: u64,
    lines: u64,
    left_out: u64,
    damage: DamageFields,
    all: Counts,
}

#[derive(Serialize)]
struct DamageFields {
    lines: u64,
    files: u64,
    named: Vec<NamedFields>,
}

#[derive(Serialize)]
struct NamedFields {
    file: String,
    line: Option<u64>,
    byte: Option<u64>,
    why: String,
}

#[derive(Serialize)]
struct RowFields {
    /// The heading of its section, and the name.
    #[serde(flatten)]
    name: BTreeMap<&'static str, Value>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct OtherFields {
    rows: Option<u64>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct Counts {
    clicks: u64,
    share: Option<f64>,
    offers: u64,
    fallbacks: u64,
    fill_rate: Option<f64>,
    probes: u64,
    bots: u64,
    #[serde(serialize_with = "by_outcome")]
    outcomes: [u64; OUTCOMES.len()],
}

/// Prints one object, in which every row has a line.
pub fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(report, &mut out)?;
    out.flush()?;
    Ok(())
}

fn write(report: &Report, out: &mut impl Write) -> anyhow::Result<()> {
    let time = |millis: Option<i64>| millis.map(spell_time);
    let head = Head {
        first_click: time(report.period.map(|(first, _)| first)),
        last_click: time(report.period.map(|(_, last)| last)),
        files: report.files,
        lines: report.lines,
        left_out: report.left_out,
        damage: DamageFields::from(&report.damage),
        all: Counts::of(&report.all, &report.all),
    };
    let head = serde_json::to_string(&head)?;
    // Left open, for the rest.
    write!(out, "{},\n\"by\":{{", head.strip_suffix('}').unwrap_or(&head))?;
    for (position, section) in report.sections.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        write!(out, "{comma}\n\"{}\":", section.by.as_str())?;
        write_section(section, &report.all, out)?;
    }
    writeln!(out, "\n}}}}")?;
    Ok(())
}

fn write_section(section: &Section, all: &Tally, out: &mut impl Write) -> anyhow::Result<()> {
    let other = section
        .beyond
        .as_ref()
        .map(|beyond| OtherFields { rows: beyond.rows, counts: Counts::of(&beyond.tally, all) });
    write!(out, "{{\"other\":{},\"rows\":[", serde_json::to_string(&other)?)?;
    for (position, row) in section.rows.iter().enumerate() {
        let fields = RowFields {
            name: BTreeMap::from([(section.by.heading(), row.name.value())]),
            counts: Counts::of(&row.tally, all),
        };
        let comma = if position == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", serde_json::to_string(&fields)?)?;
    }
    write!(out, "\n]}}")?;
    Ok(())
}

impl Counts {
    fn of(tally: &Tally, all: &Tally) -> Self {
        Self {
            clicks: tally.clicks(),
            share: ratio(tally.clicks(), all.clicks()),
            offers: tally.offers(),
            fallbacks: tally.fallbacks(),
            fill_rate: tally.fill_rate(),
            probes: tally.probes,
            bots: tally.bots,
            outcomes: tally.outcomes,
        }
    }
}

impl From<&Damage> for DamageFields {
    fn from(damage: &Damage) -> Self {
        let named = damage.named.iter().map(|Named { path, place, why }| NamedFields {
            file: path.to_string_lossy().into_owned(),
            line: place.map(|place| place.line),
            byte: place.map(|place| place.byte),
            why: why.clone(),
        });
        Self { lines: damage.lines, files: damage.files, named: named.collect() }
    }
}

fn by_outcome<S: Serializer>(counts: &[u64; OUTCOMES.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(OUTCOMES.iter().zip(counts))
}

/// What the page draws: numbers alone. Spelled so that it may stand in an element of HTML.
pub fn series(step_seconds: u32, points: &[(i64, Tally)]) -> String {
    let of = |value: fn(&Tally) -> u64| points.iter().map(|(_, tally)| value(tally)).collect::<Vec<_>>();
    json!({
        "step": step_seconds,
        "seconds": points.iter().map(|(second, _)| *second).collect::<Vec<_>>(),
        "offers": of(Tally::offers),
        "fallbacks": of(Tally::fallbacks),
    })
    .to_string()
    .replace('<', "\\u003c")
}
