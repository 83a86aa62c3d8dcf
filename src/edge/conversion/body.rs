//! The body of a postback: a form or a JSON object, short and soon, or refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::state::ConversionCount;

use super::parameters::Given;
use super::reply::Verdict;

/// Reads all of it. Where that fails, the connection is closed: what follows on it would still be this body.
pub(super) async fn read(headers: &HeaderMap, body: Incoming) -> Result<Vec<u8>, Verdict> {
    let refused = |status, sentence| Verdict::new(ConversionCount::Invalid, status, sentence).closing();
    let too_long = || refused(StatusCode::PAYLOAD_TOO_LARGE, "The body of a postback has at most 16 KiB.");
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let collected = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_PATIENCE, collected).await {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(refused(StatusCode::BAD_REQUEST, "The body broke off before its end.")),
        Err(_) => Err(refused(
            StatusCode::REQUEST_TIMEOUT,
            "The body did not come within 5 seconds; send it at once.",
        )),
    }
}

/// Adds the parameters that are in it.
pub(super) fn add<'a>(given: &mut Given<'a>, headers: &HeaderMap, body: &'a [u8]) -> Result<(), Verdict> {
    if body.is_empty() {
        return Ok(());
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        let Fields(fields) = serde_json::from_slice(body).map_err(|_| {
            Verdict::invalid("The body is not a JSON object, which its Content-Type says it is.")
        })?;
        for (name, value) in fields {
            if value.get() != "null" {
                given.add(&name, text(value))?;
            }
        }
        Ok(())
    } else if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let form = std::str::from_utf8(body).map_err(|_| {
            Verdict::invalid("The body is not a form: it has bytes that are not percent-encoded.")
        })?;
        Ok(given.add_encoded(form)?)
    } else {
        Err(Verdict::new(
            ConversionCount::Invalid,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The Content-Type of a postback is application/json or application/x-www-form-urlencoded.",
        ))
    }
}

/// A text, or a number as it is written: `45.50` is not to become 45.5.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok().map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

/// The fields of an object, the repeated ones too.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

/// Far more than the parameters at their longest.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// A body that comes a byte a minute holds a connection for nothing.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::Call;
    use super::*;

    fn read(media_type: &str, body: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
        let mut given = Given::new(Call::Json);
        let read = add(&mut given, &headers, body.as_bytes()).and_then(|()| Ok(given.read()?));
        read.map(|read| {
            format!("{} {} {} {:?}", read.click_id, read.event, read.transaction, read.amount.as_deref())
        })
        .map_err(|verdict| verdict.sentence.into_owned())
    }

    #[test]
    fn forms_and_objects() {
        let said = Ok("abc 2 a ü Some(\"45.50\")".to_owned());
        for (media_type, body) in [
            (
                "application/x-www-form-urlencoded",
                "click_id=abc&event=2&transaction_id=a+%C3%BC&amount=45.50",
            ),
            (
                "Application/JSON; charset=utf-8",
                r#"{"click_id":"abc","event":2,"transaction_id":"a \u00fc","amount":45.50,"more":[{}]}"#,
            ),
            (
                "application/json",
                r#" {"click_id": "abc", "event": "2", "transaction_id": "a ü", "amount": "45.50", "more": null} "#,
            ),
        ] {
            assert_eq!(read(media_type, body), said, "{body}");
        }
        let least = Ok("abc 0  None".to_owned());
        assert_eq!(read("application/json", r#"{"click_id":"abc","event":null,"amount":null}"#), least);
    }

    #[test]
    fn what_is_no_form_and_no_object_is_refused() {
        for (media_type, body, said) in [
            ("application/json", "", "click_id is missing"),
            ("application/json", "[1]", "not a JSON object"),
            ("application/json", r#"{"click_id":"abc""#, "not a JSON object"),
            ("application/json", r#"{"click_id":"a","click_id":"b"}"#, "click_id is given more than once"),
            ("application/json", r#"{"click_id":["a"]}"#, "click_id must be a text"),
            ("application/json", r#"{"click_id":"a","amount":true}"#, "amount must be a text"),
            ("application/json", r#"{"click_id":"a","amount":1e3}"#, "amount must be a decimal number"),
            ("text/plain", "click_id=abc", "Content-Type"),
            ("", "click_id=abc", "Content-Type"),
        ] {
            let refused = read(media_type, body).unwrap_err();
            assert!(refused.contains(said), "{body}: {refused}");
        }
    }
}
