//! The report for spreadsheets: one table, in which `by` and `name` say what a row is of.

use std::io::{self, Write};

use csv::Writer;
use serde_json::Value;

use super::click::OUTCOMES;
use super::read::Damage;
use super::rows::Report;
use super::tally::{Tally, ratio};

/// Prints a header, a row for everything, those of every section, and what is damaged.
pub fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = Writer::from_writer(Vec::new());
    let fixed = ["by", "name", "lines", "clicks", "share", "offers", "fill_rate", "probes", "bots"];
    out.write_record(fixed.iter().chain(&OUTCOMES[1..]))?;
    let mut row = |by: &str, name: &str, tally: &Tally| write(&mut out, by, name, tally, &report.all);
    row("all", "", &report.all)?;
    for section in &report.sections {
        for counted in &section.rows {
            let name = match counted.name.value() {
                Value::Null => String::new(),
                Value::String(text) => text,
                value => value.to_string(),
            };
            row(section.by.as_str(), &name, &counted.tally)?;
        }
        if let Some(beyond) = &section.beyond {
            row(section.by.as_str(), &beyond.name(), &beyond.tally)?;
        }
    }
    write_damage(&mut out, &report.damage, fixed.len() + OUTCOMES.len() - 1)?;
    // By way of memory, of which it takes little: an error of the pipe is one of the pipe then.
    io::stdout().write_all(&out.into_inner()?)?;
    Ok(())
}

fn write(
    out: &mut Writer<impl io::Write>,
    by: &str,
    name: &str,
    tally: &Tally,
    all: &Tally,
) -> csv::Result<()> {
    let number = |number: u64| number.to_string();
    let share = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.6}")).unwrap_or_default();
    let mut cells = vec![by.to_owned(), name.to_owned(), number(tally.lines()), number(tally.clicks())];
    cells.push(share(ratio(tally.clicks(), all.clicks())));
    cells.push(number(tally.offers()));
    cells.push(share(tally.fill_rate()));
    cells.extend([tally.probes, tally.bots].iter().chain(&tally.outcomes[1..]).map(|count| number(*count)));
    out.write_record(cells)
}

/// A row for all that is damaged, and one for each that is named: what was not counted cannot be overlooked by whoever has no
/// more than the table. No cell begins with what a spreadsheet takes for a formula.
fn write_damage(out: &mut Writer<impl io::Write>, damage: &Damage, width: usize) -> csv::Result<()> {
    if damage.lines + damage.files == 0 {
        return Ok(());
    }
    let mut row = |name: String, lines: String| {
        let cells = ["damaged".to_owned(), name, lines];
        out.write_record(cells.into_iter().chain((3..width).map(|_| String::new())))
    };
    row(String::new(), damage.lines.to_string())?;
    for named in &damage.named {
        row(named.to_string(), u64::from(named.place.is_some()).to_string())?;
    }
    Ok(())
}
