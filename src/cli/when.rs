//! Conditions of a rule as people write them, `country in US,CA`, to and from the API's JSON.
//!
//! Only the form is read here; which names and values there are is said by the API, in its own words.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::cake::{read_value_list, write_value_list};
use crate::routing::DAY_NAMES;

/// Reads `--conditions`.
pub fn read_json(text: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(text).context("--conditions is no valid JSON")?;
    if !value.is_object() {
        bail!("--conditions is JSON but no object; expected one such as {{\"country\":{{\"in\":[\"US\"]}}}}");
    }
    Ok(value)
}

/// Reads every `--when`. A name stands once: two lists of one condition would leave open which of them counts.
pub fn read(all: &[String]) -> anyhow::Result<Value> {
    let mut conditions = Map::new();
    for text in all {
        let (name, condition) =
            read_one(text).with_context(|| format!("--when {text:?} is not understood"))?;
        if conditions.insert(name.clone(), condition).is_some() {
            bail!("--when names `{name}` twice; put all its values into one");
        }
    }
    Ok(conditions.into())
}

/// The conditions as they would be written for [`read`], with semicolons between them.
pub fn write(conditions: &Value) -> String {
    let Some(conditions) = conditions.as_object().filter(|all| !all.is_empty()) else {
        return "always".to_owned();
    };
    conditions.iter().map(|(name, value)| write_one(name, value)).collect::<Vec<_>>().join("; ")
}

fn read_one(text: &str) -> anyhow::Result<(String, Value)> {
    let (name, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    if name == "hours" {
        return Ok((name.to_owned(), read_hours(rest)?));
    }
    let (mode, list) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    if name.is_empty() || !["in", "not_in"].contains(&mode) || list.trim().is_empty() {
        bail!("expected a name, `in` or `not_in`, and values, such as 'country in US,CA'");
    }
    Ok((name.to_owned(), json!({ mode: read_value_list(name, list)? })))
}

/// `mon-fri 09:00-17:30 America/New_York`, the days being optional.
fn read_hours(text: &str) -> anyhow::Result<Value> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, span, zone) = match words[..] {
        [days, span, zone] => (Some(read_days(days)?), span, zone),
        [span, zone] => (None, span, zone),
        _ => bail!(
            "expected days, a span and a time zone, such as 'hours mon-fri 09:00-17:30 America/New_York'"
        ),
    };
    let Some((from, to)) = span.split_once('-') else {
        bail!("{span:?} is no span; expected one such as 09:00-17:30");
    };
    let mut hours = json!({ "from": from, "to": to, "time_zone": zone });
    if let Some(days) = days {
        hours["days"] = days.into();
    }
    Ok(hours)
}

/// `mon-fri`, `sat,sun`, `fri-mon,wed`.
fn read_days(text: &str) -> anyhow::Result<Vec<&'static str>> {
    let day = |name: &str| {
        let known = DAY_NAMES.iter().position(|day| name.eq_ignore_ascii_case(day));
        known.with_context(|| format!("{name:?} is no day; expected mon, tue, wed, thu, fri, sat or sun"))
    };
    let mut named = [false; DAY_NAMES.len()];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let days = (last + DAY_NAMES.len() - first) % DAY_NAMES.len();
        (0..=days).for_each(|offset| named[(first + offset) % DAY_NAMES.len()] = true);
    }
    Ok(DAY_NAMES.into_iter().zip(named).filter(|(_, named)| *named).map(|(day, _)| day).collect())
}

fn write_one(name: &str, value: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if name == "hours" {
        let days =
            if value["days"].is_array() { write_value_list(&value["days"]) + " " } else { String::new() };
        let days = if days == "mon,tue,wed,thu,fri " { "mon-fri ".to_owned() } else { days };
        return format!(
            "hours {days}{}-{} {}",
            text(&value["from"]),
            text(&value["to"]),
            text(&value["time_zone"])
        );
    }
    match value.as_object().and_then(|object| object.iter().next()) {
        Some((mode, values)) => format!("{name} {mode} {}", write_value_list(values)),
        None => format!("{name} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Value, String> {
        read(&[text.to_owned()]).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn reads_what_people_write() {
        for (text, condition) in [
            ("country in US,CA", json!({"country": {"in": ["US", "CA"]}})),
            (" country  in  US , CA ", json!({"country": {"in": ["US", "CA"]}})),
            ("device not_in tablet", json!({"device": {"not_in": ["tablet"]}})),
            ("asn in 64496,AS64497", json!({"asn": {"in": [64496, 64497]}})),
            ("s1 in 64496", json!({"s1": {"in": ["64496"]}})),
            (
                "city in New York,\"Washington, D.C.\"",
                json!({"city": {"in": ["New York", "Washington, D.C."]}}),
            ),
            (
                "hours mon-fri 09:00-17:30 America/New_York",
                json!({"hours": {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:30",
                                 "time_zone": "America/New_York"}}),
            ),
            ("hours 22:00-06:00 UTC", json!({"hours": {"from": "22:00", "to": "06:00", "time_zone": "UTC"}})),
            (
                "hours sat-mon,wed 00:00-24:00 UTC",
                json!({"hours": {"days": ["mon", "wed", "sat", "sun"], "from": "00:00", "to": "24:00", "time_zone": "UTC"}}),
            ),
            // A value that is wrong is the API's to refuse.
            ("planet in Mars", json!({"planet": {"in": ["Mars"]}})),
        ] {
            assert_eq!(one(text).unwrap(), condition, "{text}");
            assert_eq!(one(&write(&condition)).unwrap(), condition, "{text} written again");
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_form() {
        for (text, said) in [
            ("", "expected a name"),
            ("country", "expected a name"),
            ("country US", "expected a name"),
            ("country is US", "expected a name"),
            ("country in", "expected a name"),
            ("city in \"New York", "not closed"),
            ("hours 9-17", "expected days, a span and a time zone"),
            ("hours mon-fri 0900 UTC", "\"0900\" is no span"),
            ("hours mo-fr 09:00-17:00 UTC", "\"mo\" is no day"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(said) && error.contains("--when"), "{text:?}: {error}");
        }
        let twice = ["os in ios".to_owned(), "os in android".to_owned()];
        assert!(read(&twice).unwrap_err().to_string().contains("`os` twice"));
        assert!(read_json("[]").is_err() && read_json("{").is_err() && read_json("{}").is_ok());
    }

    #[test]
    fn nothing_is_always() {
        assert_eq!(write(&json!({})), "always");
    }
}
