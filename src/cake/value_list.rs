//! The list of a condition as people write it, `US,CA`, to and from the API's JSON. A value that has a comma, a quote or
//! space at its ends stands in double quotes, and a quote in it is doubled: what was written is read as the same.

use serde_json::Value;

/// A double quote is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a double quote is not closed")]
pub struct OpenQuote;

/// Reads the list of the condition of this name.
pub fn read_value_list(condition: &str, list: &str) -> Result<Vec<Value>, OpenQuote> {
    Ok(split(list)?.into_iter().map(|value| read_value(condition, value)).collect())
}

/// Writes what [`read_value_list`] reads.
pub fn write_value_list(list: &Value) -> String {
    let text = |value: &Value| match value.as_str() {
        Some(text) if text.contains([',', '"']) || text.trim() != text || text.is_empty() => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

/// Autonomous system numbers are numbers in JSON, also where they are written as AS64496; everything else is text.
fn read_value(condition: &str, value: String) -> Value {
    let number = value.trim_start_matches("AS").parse::<u32>();
    match number {
        Ok(number) if condition == "asn" => number.into(),
        _ => value.into(),
    }
}

/// Splits at commas outside of double quotes.
fn split(list: &str) -> Result<Vec<String>, OpenQuote> {
    let mut values = Vec::new();
    // The value at hand, and how much of it stood in quotes.
    let (mut value, mut kept, mut quoted) = (String::new(), 0, false);
    let mut has_quotes = false;
    let mut characters = list.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                value.push('"');
            }
            '"' => {
                quoted = !quoted;
                has_quotes = true;
                kept = value.len();
            }
            ',' if !quoted => {
                value.truncate(value.trim_end().len().max(kept));
                values.push(std::mem::take(&mut value));
                (kept, has_quotes) = (0, false);
            }
            ' ' if !quoted && value.is_empty() => {}
            character => value.push(character),
        }
    }
    if quoted {
        return Err(OpenQuote);
    }
    value.truncate(value.trim_end().len().max(kept));
    // Behind a comma at the end there is no value, unless one says so: an empty text would match every click that lacks it.
    if !value.is_empty() || has_quotes || values.is_empty() {
        values.push(value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_as_the_same() {
        for list in [
            json!(["US", "CA"]),
            json!(["Washington, D.C.", "New York"]),
            json!(["\"e\"", "a\"b", "\"", "\"\"", ""]),
            json!([" ", " a", "b ", "c d"]),
        ] {
            let written = write_value_list(&list);
            assert_eq!(Value::from(read_value_list("s1", &written).unwrap()), list, "{written}");
        }
        assert_eq!(write_value_list(&json!([64496])), "64496");
    }

    #[test]
    fn what_people_write() {
        for (condition, text, list) in [
            ("country", " US , CA", json!(["US", "CA"])),
            ("city", "New York,\"Washington, D.C.\"", json!(["New York", "Washington, D.C."])),
            ("asn", "64496,AS64497,x", json!([64496, 64497, "x"])),
            ("s1", "64496", json!(["64496"])),
            ("s1", "a,,b", json!(["a", "", "b"])),
            ("s1", "vip, ", json!(["vip"])),
            ("s1", "vip,\"\"", json!(["vip", ""])),
        ] {
            assert_eq!(Value::from(read_value_list(condition, text).unwrap()), list, "{text}");
        }
        assert_eq!(read_value_list("city", "\"New York"), Err(OpenQuote));
    }
}
