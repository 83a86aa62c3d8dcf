//! The report in columns, for a terminal.

use std::io::{self, Write};

use super::click::OUTCOMES;
use super::rows::{Report, Section};
use super::tally::{Tally, ratio};
use crate::cli::api::{number, print_table, text};

/// Prints every section. With `outcomes`, a column for each that occurs.
pub fn print(report: &Report, outcomes: bool) -> anyhow::Result<()> {
    for (position, section) in report.sections.iter().enumerate() {
        if position > 0 {
            writeln!(io::stdout())?;
        }
        print_section(section, &report.all, outcomes)?;
    }
    Ok(())
}

fn print_section(section: &Section, all: &Tally, outcomes: bool) -> anyhow::Result<()> {
    let mut rows: Vec<(String, &Tally)> =
        section.rows.iter().map(|row| (row.name.shown(), &row.tally)).collect();
    rows.extend(section.beyond.iter().map(|beyond| (beyond.name(), &beyond.tally)));
    if rows.len() != 1 {
        rows.push(("all".to_owned(), all));
    }
    let mut columns = vec![
        text(section.by.heading()),
        number("clicks"),
        number("share"),
        number("offers"),
        number("fill rate"),
        number("probes"),
        number("bots"),
    ];
    if outcomes {
        columns.extend(Section::fallbacks(all).into_iter().map(|outcome| number(OUTCOMES[outcome])));
    }
    print_table::<(String, &Tally)>(&columns, &rows, |(name, tally), column| match column {
        "clicks" => tally.clicks().to_string(),
        "share" => percent(ratio(tally.clicks(), all.clicks())),
        "offers" => tally.offers().to_string(),
        "fill rate" => percent(tally.fill_rate()),
        "probes" => tally.probes.to_string(),
        "bots" => tally.bots.to_string(),
        outcome => {
            let position = OUTCOMES.iter().position(|other| *other == outcome);
            position.map_or_else(|| name.clone(), |position| tally.outcomes[position].to_string())
        }
    })
}

pub fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", 100.0 * ratio))
}
