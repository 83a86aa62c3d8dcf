//! `smartlink log stats`: clicks counted over a click log of any size, in columns, for programs, or as a page.
//!
//! Memory is bounded: a chunk of a file for each core, and at most [`tally::NAMES_MAX`] names of a kind. What a name counts is
//! exact; what has no room is in one more row. What it does not do, deliberately: cross two kinds of names. A filter on the one
//! and rows by the other say the same, for as many as anybody looks at.

mod click;
mod csv;
mod json;
mod page;
mod read;
mod rows;
mod table;
mod tally;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{SignedDuration, Timestamp, civil};

use self::click::Filter;
use self::read::{Damage, count};
use self::rows::{Report, spell_time};
use self::tally::By;
use super::export::replace_file;
use super::log::Files;
use super::one_line::OneLine;
use crate::clicklog::segments;
use crate::config::Flags;
use crate::types::Country;

/// What is counted, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    files: Files,
    /// A row for each; several, with commas between them, make several tables [default: outcome; of a page: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    by: Vec<By>,
    /// In a table, a column for each outcome that occurs
    #[arg(long)]
    outcomes: bool,
    /// At most so many rows, the rest in one more; times have all [default: all; of a page: 20]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Print JSON, one object
    #[arg(long, group = "form")]
    json: bool,
    /// Print CSV
    #[arg(long, group = "form")]
    csv: bool,
    /// Write a page with charts, which needs nothing but this file
    #[arg(long, group = "form", value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which clicks")]
struct Which {
    /// From this time on: 2026-11-22, 2026-11-22T20:00:00Z, or so long ago: 90m, 12h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time, without it
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// On these links
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    link: Vec<u32>,
    /// Of these affiliates
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    affiliate: Vec<u32>,
    /// To these offers; fallbacks are not counted then
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    offer: Vec<u32>,
    /// From these countries
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = read_country)]
    country: Vec<Country>,
}

impl ReportArgs {
    pub fn run(&self, flags: &Flags) -> anyhow::Result<ExitCode> {
        let filter = self.which.filter(Timestamp::now())?;
        let found = self.files.find(flags)?;
        if found.segments.is_empty() && found.packed.is_empty() {
            let places: Vec<String> =
                found.directories.iter().map(|path| path.display().to_string()).collect();
            eprintln!("smartlink: there is no segment of a click log in {}", OneLine(places.join(" or in ")));
        }
        let by = self.counted_by();
        let mut paths = found.segments;
        // One that got its other name while the directory was listed may have been in neither place.
        for directory in &found.directories {
            let again =
                segments(directory).with_context(|| format!("cannot list {}", directory.display()))?;
            let known: HashSet<PathBuf> = paths.iter().cloned().collect();
            paths.extend(again.into_iter().map(|segment| segment.path).filter(|path| !known.contains(path)));
        }
        paths.extend(found.packed);
        let bar = progress(&paths)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let counted = count(paths, &by, &filter, cores, |bytes| bar.inc(bytes));
        bar.finish_and_clear();
        if counted.files == 0 && counted.damage.files > 0 {
            // A report of nothing would pass for one of a night without clicks.
            tell(&counted.damage);
            bail!("none of the files that were named could be read, so that there is no report");
        }
        let top = self.top.or(self.html.is_some().then_some(PAGE_ROWS));
        let report = Report::new(counted, self.which.in_words(&filter), top);
        self.show(&report)?;
        tell(&report.damage);
        let is_whole = report.damage.lines + report.damage.files == 0;
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
    }

    fn counted_by(&self) -> Vec<By> {
        let mut by: Vec<By> = match (&self.by[..], &self.html) {
            ([], None) => vec![By::Outcome],
            ([], Some(_)) => page::TABLES.to_vec(),
            (named, _) => named.to_vec(),
        };
        if self.html.is_some() {
            by.extend(page::TIMES);
        }
        let mut seen = Vec::new();
        by.retain(|by| {
            !seen.contains(by) && {
                seen.push(*by);
                true
            }
        });
        by
    }

    fn show(&self, report: &Report) -> anyhow::Result<()> {
        match &self.html {
            _ if self.json => json::print(report),
            _ if self.csv => csv::print(report),
            Some(path) => {
                let text = page::write(report)?;
                replace_file(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
                println!("{}", page::sentence(report));
                Ok(())
            }
            None => table::print(report, self.outcomes),
        }
    }
}

impl Which {
    fn filter(&self, now: Timestamp) -> anyhow::Result<Filter> {
        let time = |typed: &Option<String>, flag| -> anyhow::Result<Option<i64>> {
            let Some(text) = typed else { return Ok(None) };
            let read = read_time(text, now).with_context(|| {
                format!("--{flag} {text:?} is no time; expected one such as 2026-11-22, 2026-11-22T20:00:00Z, or 12h for twelve hours ago")
            });
            read.map(|time| Some(time.as_millisecond()))
        };
        let set = |ids: &[u32]| ids.iter().copied().collect::<HashSet<u32>>();
        Ok(Filter {
            since: time(&self.since, "since")?,
            until: time(&self.until, "until")?,
            links: set(&self.link),
            affiliates: set(&self.affiliate),
            offers: set(&self.offer),
            countries: self.country.iter().copied().collect(),
        })
    }

    /// What is counted, for whoever reads the page later.
    fn in_words(&self, filter: &Filter) -> String {
        let list = |what: &str, values: Vec<String>| {
            (!values.is_empty()).then(|| format!("{what} {}", values.join(", ")))
        };
        let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>();
        let parts = [
            filter.since.map(|since| format!("since {}", spell_time(since))),
            filter.until.map(|until| format!("until {}", spell_time(until))),
            list("link", ids(&self.link)),
            list("affiliate", ids(&self.affiliate)),
            list("offer", ids(&self.offer)),
            list("country", self.country.iter().map(Country::to_string).collect()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }
}

/// A moment, of UTC if it does not say otherwise; a day in UTC; or a span before now.
fn read_time(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    // Of a text with a time of day, `civil::Date` would take the day alone.
    if let Ok(moment) = text.parse::<civil::DateTime>() {
        return Ok(moment.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp());
    }
    let (number, unit) = text.split_at(text.len() - usize::from(text.is_ascii() && !text.is_empty()));
    let unit_seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => anyhow::bail!("it has no unit of m, h or d"),
    };
    let units = number.parse::<u32>()?;
    Ok(now.checked_sub(SignedDuration::from_secs(i64::from(units) * unit_seconds))?)
}

fn read_country(code: &str) -> Result<Country, String> {
    Country::parse(code).ok_or_else(|| "expected two capital letters of ISO 3166-1, such as US".to_owned())
}

/// How far the reading is; hidden where nobody looks. Live segments have less to read than they are long.
fn progress(paths: &[PathBuf]) -> anyhow::Result<ProgressBar> {
    let bytes =
        paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left)")?;
    Ok(ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr()).with_style(style))
}

/// On standard error, in every form: what was not counted.
fn tell(damage: &Damage) {
    for named in &damage.named {
        eprintln!("smartlink: {named}; not counted");
    }
    let more = damage.lines + damage.files - damage.named.len() as u64;
    if more > 0 {
        eprintln!("smartlink: … and {more} more; {} lines and {} files in all", damage.lines, damage.files);
    }
}

/// The exit code if something was not counted.
const DAMAGED: u8 = 1;

/// Of a table on the page.
const PAGE_ROWS: usize = 20;

pub const EXAMPLES: &str = "\
Clicks are those of persons: probes and bots have columns of their own and are in no fill rate. The fill rate is the \
clicks that reached an offer, divided by all clicks. Times are UTC.

Lines that cannot be read, and files that cannot, are told and not counted, and the rest is. Exit code: 0 if everything \
was counted; 1 if lines or files were not; 2 if there is no report: a PATH is missing, no file could be read (compressed \
ones are to be unpacked first, as below), or an argument is wrong.

Examples:
  smartlink log stats
  smartlink log stats --by link --top 20 --outcomes
  smartlink log stats --by hour --since 2026-11-22 --link 301
  smartlink log stats --by offer --json | jq '.by.offer.rows[0].share'
  smartlink log stats --html report.html --since 7d
  zcat /backup/clicks-202611*.gz | smartlink log stats --by day --csv -";
