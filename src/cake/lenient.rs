//! Numbers and truths as upstreams write them: `301`, `"301"`, `60.0`; `true`, `"true"`, `1`.
//!
//! What is meant is read. Whatever could mean two things is an error, and makes its item unreadable.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

/// An id, a weight, a priority.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    deserializer.deserialize_any(Lenient(PhantomData))
}

/// `cap_aware` and its like.
pub fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(Lenient(PhantomData))
}

/// A whole number, or null.
pub fn whole_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_option(OrNull(PhantomData))
}

/// A payout, or null.
pub fn decimal_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    deserializer.deserialize_option(OrNull(PhantomData))
}

/// What can be read in more than one spelling.
trait Spelled: Sized {
    const EXPECTED: &'static str;

    fn from_whole(number: i64) -> Option<Self>;
    fn from_decimal(number: f64) -> Option<Self>;
    fn from_truth(truth: bool) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

impl Spelled for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_whole(number: i64) -> Option<Self> {
        Some(number)
    }

    fn from_decimal(number: f64) -> Option<Self> {
        (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
    }

    fn from_truth(_: bool) -> Option<Self> {
        None
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| Self::from_decimal(f64::from_text(text)?))
    }
}

impl Spelled for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_whole(number: i64) -> Option<Self> {
        Some(number as f64)
    }

    fn from_decimal(number: f64) -> Option<Self> {
        number.is_finite().then_some(number)
    }

    fn from_truth(_: bool) -> Option<Self> {
        None
    }

    /// Digits only: Rust would read "inf" and "nan", too.
    fn from_text(text: &str) -> Option<Self> {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        text.parse().ok().filter(|_| is_digits).and_then(Self::from_decimal)
    }
}

impl Spelled for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_whole(number: i64) -> Option<Self> {
        match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn from_decimal(_: f64) -> Option<Self> {
        None
    }

    fn from_truth(truth: bool) -> Option<Self> {
        Some(truth)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "0" => Some(false),
            "1" => Some(true),
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }
}

struct Lenient<T>(PhantomData<T>);

impl<T: Spelled> Lenient<T> {
    fn read<E: Error>(value: Option<T>, found: impl fmt::Display) -> Result<T, E> {
        value.ok_or_else(|| E::custom(format_args!("invalid value: {found}, expected {}", T::EXPECTED)))
    }
}

impl<T: Spelled> Visitor<'_> for Lenient<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Self::read(T::from_whole(number), number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Self::read(i64::try_from(number).ok().and_then(T::from_whole), number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        Self::read(T::from_decimal(number), number)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<T, E> {
        Self::read(T::from_truth(truth), truth)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Self::read(T::from_text(text.trim()), format_args!("{text:?}"))
    }
}

struct OrNull<T>(PhantomData<T>);

impl<'de, T: Spelled> Visitor<'de> for OrNull<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or null", T::EXPECTED)
    }

    fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(Lenient(PhantomData)).map(Some)
    }
}

/// Up to 2⁵³ a double holds every whole number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "whole")]
        whole: i64,
        #[serde(default, deserialize_with = "truth")]
        truth: bool,
        #[serde(default, deserialize_with = "whole_or_null")]
        id: Option<i64>,
        #[serde(default, deserialize_with = "decimal_or_null")]
        decimal: Option<f64>,
    }

    fn read(name: &str, value: &Value) -> Result<Sample, String> {
        serde_json::from_str(&json!({name: value}).to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_meant_is_read() {
        for value in [json!(301), json!("301"), json!(" 301 "), json!(301.0), json!("301.0")] {
            assert_eq!(read("whole", &value).unwrap().whole, 301, "{value}");
            assert_eq!(read("id", &value).unwrap().id, Some(301), "{value}");
        }
        assert_eq!(read("whole", &json!("-1")).unwrap().whole, -1);
        for (value, truth) in [
            (json!(true), true),
            (json!("true"), true),
            (json!("False"), false),
            (json!(1), true),
            (json!(0), false),
            (json!("0"), false),
        ] {
            assert_eq!(read("truth", &value).unwrap().truth, truth, "{value}");
        }
        for (value, decimal) in [(json!(45), 45.0), (json!("45.0"), 45.0), (json!(0.5), 0.5)] {
            assert_eq!(read("decimal", &value).unwrap().decimal, Some(decimal), "{value}");
        }
        assert_eq!(read("decimal", &Value::Null).unwrap().decimal, None);
        assert_eq!(read("id", &Value::Null).unwrap().id, None);
    }

    #[test]
    fn what_could_mean_two_things_is_not() {
        for value in [
            json!(""),
            json!("1,000"),
            json!("0x1F"),
            json!(1.5),
            json!(true),
            json!(null),
            json!([1]),
            json!({}),
            json!(u64::MAX),
            json!(1e300),
        ] {
            assert!(read("whole", &value).is_err(), "{value}");
        }
        for value in [json!(2), json!("yes"), json!(1.0), json!(null)] {
            assert!(read("truth", &value).is_err(), "{value}");
        }
        for value in [json!("inf"), json!("nan"), json!("1e5"), json!(false), json!("")] {
            assert!(read("decimal", &value).is_err(), "{value}");
        }
        let error = read("whole", &json!("many")).unwrap_err();
        assert!(error.contains("\"many\", expected a whole number"), "{error}");
    }
}
