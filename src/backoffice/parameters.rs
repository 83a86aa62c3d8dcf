//! The parameters of a call: collected from query, body and header, then read by name and type.
//!
//! A value is text where it came from a query or a form, and may be text in JSON; numbers, truth values and objects
//! are read from either. What is not of its type is refused with the parameter's name. Nothing that was sent to
//! change the network is passed over: not a repeated name, not a misspelt one.

use http::{HeaderMap, header};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::answer::Refusal;
use super::contract::{Parameter, ROW_LIMIT_MAX, TITLE_CHARS_MAX};
use super::json;
use super::store::Page;
use crate::cake::wire::{FieldError, expected};

/// Named values of a call, without the key.
#[derive(Debug, Default)]
pub struct Parameters {
    values: Map<String, Value>,
    /// Which names the call looked for: a test compares them with those that it tells.
    #[cfg(test)]
    names_read: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

/// Every `api_key` that came with a call; apart from the parameters, so that no message can quote one.
#[derive(Default)]
pub struct PresentedKeys(Vec<Value>);

impl Parameters {
    /// Adds the pairs of a query. An empty value is a field of a form that was left open: no filter.
    pub fn add_query(&mut self, query: &str, keys: &mut PresentedKeys) -> Result<(), Refusal> {
        self.add_pairs(query.as_bytes(), keys)?;
        self.values.retain(|_, value| value.as_str() != Some(""));
        Ok(())
    }

    /// Adds the members of a body: a JSON object, or a form where the content type says so.
    pub fn add_body(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        keys: &mut PresentedKeys,
    ) -> Result<(), Refusal> {
        let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else { return Ok(()) };
        let kind =
            headers.get(header::CONTENT_TYPE).map_or("application/json", |kind| kind.to_str().unwrap_or("?"));
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // `curl -d '{…}'` calls its JSON a form, and no form of ours begins with a brace.
        let form = kind == "application/x-www-form-urlencoded" && *first != b'{';
        if form {
            return self.add_pairs(body, keys);
        }
        if !["application/json", "text/json", "application/x-www-form-urlencoded"].contains(&kind.as_str()) {
            return Err(Refusal::Body(
                "is of a content type that is not understood; send application/json or \
                 application/x-www-form-urlencoded"
                    .to_owned(),
            ));
        }
        match json::parse(body) {
            Ok(Value::Object(members)) => {
                members.into_iter().try_for_each(|(name, value)| self.add(name, value, keys))
            }
            Ok(_) => Err(Refusal::Body("is JSON but no object; send {\"name\": value, …}".to_owned())),
            Err(error) => Err(Refusal::Body(format!("is no valid JSON: {error}"))),
        }
    }

    fn add_pairs(&mut self, pairs: &[u8], keys: &mut PresentedKeys) -> Result<(), Refusal> {
        for (name, value) in form_urlencoded::parse(pairs) {
            // The parser puts this character where the bytes were no UTF-8.
            if value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(Refusal::malformed(&name, "is not valid UTF-8; send text in UTF-8"));
            }
            self.add(name.into_owned(), value.into_owned().into(), keys)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, value: Value, keys: &mut PresentedKeys) -> Result<(), Refusal> {
        if name == API_KEY {
            keys.0.push(value);
        } else if self.values.contains_key(&name) {
            return Err(Refusal::malformed(&name, "is given twice; give it once"));
        } else {
            self.values.insert(name, value);
        }
        Ok(())
    }

    pub fn first_name(&self) -> Option<&str> {
        self.values.keys().next().map(String::as_str)
    }

    /// Refuses a name that the call does not know: a misspelt weight passed over would cost money.
    pub fn refuse_unknown(&self, known: &[Parameter]) -> Result<(), Refusal> {
        let is_known = |name: &String| known.iter().any(|parameter| parameter.name == name);
        match self.values.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(SHOWN_CHARS).collect();
                let known: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
                Err(Refusal::malformed(
                    &shown,
                    format!("is not a parameter of this call; there are {}", known.join(", ")),
                ))
            }
        }
    }

    /// The value of that name as it was sent.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        #[cfg(test)]
        self.names_read.borrow_mut().insert(name.to_owned());
        self.values.get(name)
    }

    #[cfg(test)]
    pub fn names_read(&self) -> std::collections::BTreeSet<String> {
        self.names_read.borrow().clone()
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        self.read(name, "text", Value::as_str)
    }

    /// The name of a link or an offer.
    pub fn title(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let Some(title) = self.text(name)? else { return Ok(None) };
        let good = !title.trim().is_empty()
            && title.chars().count() <= TITLE_CHARS_MAX
            && !title.contains(char::is_control);
        if good {
            Ok(Some(title))
        } else {
            Err(expected(name, title, "a name of 1 to 255 characters, none of them a control character")
                .into())
        }
    }

    /// A text that may be taken away: `Some(None)` where the caller sent null or an empty one.
    pub fn removable_text(&self, name: &str) -> Result<Option<Option<&str>>, Refusal> {
        match self.raw(name) {
            Some(Value::Null) => Ok(Some(None)),
            _ => Ok(self.text(name)?.map(|text| Some(text).filter(|text| !text.is_empty()))),
        }
    }

    pub fn whole_number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.read(name, "a whole number", |value| match value {
            // A sign of plus would be a space, had the caller encoded it right.
            Value::String(text) if !text.starts_with('+') => text.parse().ok(),
            value => value.as_i64().or_else(|| whole(value.as_f64()?)),
        })
    }

    /// A number that may be taken away, as [`removable_text`](Self::removable_text).
    pub fn removable_number(&self, name: &str) -> Result<Option<Option<f64>>, Refusal> {
        match self.raw(name) {
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) if text.is_empty() => Ok(Some(None)),
            _ => {
                let number = self.read(name, "a number", |value| match value {
                    Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
                    value => value.as_f64(),
                })?;
                Ok(number.map(Some))
            }
        }
    }

    pub fn truth(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, "true or false", |value| match value {
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            value => value.as_bool(),
        })
    }

    /// An object; in a form, an object written as JSON.
    pub fn object(&self, name: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        self.read(name, "an object", |value| match value {
            Value::String(text) => match json::parse(text.as_bytes()) {
                Ok(Value::Object(members)) => Some(members),
                _ => None,
            },
            value => value.as_object().cloned(),
        })
    }

    /// `start_at_row` and `row_limit`.
    pub fn page(&self, rows_default: i64) -> Result<Page, Refusal> {
        let start_at_row = self.whole_number("start_at_row")?.unwrap_or(0);
        if start_at_row < 0 {
            return Err(Refusal::Malformed(expected("start_at_row", start_at_row, "a whole number from 0")));
        }
        let row_limit = self.whole_number("row_limit")?.unwrap_or(rows_default);
        if !(1..=ROW_LIMIT_MAX).contains(&row_limit) {
            let wanted = format!("a whole number from 1 to {ROW_LIMIT_MAX}");
            return Err(Refusal::Malformed(expected("row_limit", row_limit, &wanted)));
        }
        Ok(Page { start_at_row, row_limit })
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.raw(name) {
            None => Ok(None),
            Some(value) => {
                read(value).map(Some).ok_or_else(|| Refusal::Malformed(expected(name, value.clone(), wanted)))
            }
        }
    }
}

impl From<Map<String, Value>> for Parameters {
    fn from(values: Map<String, Value>) -> Self {
        Self {
            values,
            #[cfg(test)]
            names_read: Default::default(),
        }
    }
}

impl PresentedKeys {
    /// Adds the key of an `Authorization: Bearer`. Other schemes are for whoever stands before us.
    pub fn add_bearer(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(header::AUTHORIZATION) {
            let value = String::from_utf8_lossy(value.as_bytes());
            if let Some((scheme, key)) = value.split_once(' ')
                && scheme.eq_ignore_ascii_case("bearer")
            {
                self.0.push(key.trim().into());
            }
        }
    }

    /// Adds a key that came in a body, if one did.
    pub fn add(&mut self, key: Option<Value>) {
        self.0.extend(key);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each key; `None` for one that is no text.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(Value::as_str)
    }
}

/// Some languages write every number with a fraction: 60.0 is as whole as 60.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= WHOLE_MAX).then_some(number as i64)
}

/// A parameter that the call cannot do without.
pub fn required<T>(name: &str, value: Option<T>, wanted: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::Malformed(FieldError::new(name, format!("is missing; expected {wanted}"))))
}

/// 2⁵³: beyond it a number with a fraction no longer tells each whole number.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Enough of an unknown name to recognise it by.
const SHOWN_CHARS: usize = 80;

const API_KEY: &str = "api_key";

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<Parameters, Refusal> {
        let mut parameters = Parameters::default();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        parameters.add_body(&headers, text.as_bytes(), &mut PresentedKeys::default()).map(|()| parameters)
    }

    #[test]
    fn text_reads_as_what_it_says() {
        let form = form("id=42&cap_aware=False&payout=45.5&conditions=%7B%22os%22%3A1%7D&gone=").unwrap();
        assert_eq!(form.whole_number("id").unwrap(), Some(42));
        assert_eq!(form.truth("cap_aware").unwrap(), Some(false));
        assert_eq!(form.removable_number("payout").unwrap(), Some(Some(45.5)));
        assert_eq!(form.object("conditions").unwrap().unwrap()["os"], 1);
        assert_eq!(form.removable_text("gone").unwrap(), Some(None));
        assert_eq!(form.text("absent").unwrap(), None);
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_fraction() {
        let read = |number: Value| {
            let fields: Map<String, Value> = [("id".to_owned(), number)].into_iter().collect();
            Parameters::from(fields).whole_number("id").ok().flatten()
        };
        assert_eq!(read(serde_json::json!(60.0)), Some(60));
        assert_eq!(read(serde_json::json!(-0.0)), Some(0));
        for number in [60.5, 1e300, 9_007_199_254_740_994.0] {
            assert_eq!(read(number.into()), None, "{number}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["id=", "id=%2B1", "id=1.0", "id=0x1", "id=1e2", "id=99999999999999999999", "id=+1"] {
            assert!(form(text).unwrap().whole_number("id").is_err(), "{text}");
        }
        for text in ["payout=NaN", "payout=inf", "payout=1e999", "payout=4,5"] {
            assert!(form(text).unwrap().removable_number("payout").is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_stands_once_and_in_utf_8() {
        for text in ["a=1&a=1", "a=%FF"] {
            assert!(form(text).unwrap_err().to_string().starts_with("`a` is "), "{text}");
        }
    }
}
