//! What a click asks for: `/sl?id=301&aff_id=67890&s1=…` or `/sl/301?aff_id=67890&s1=…`.
//!
//! Ids are strict, because a wrong guess sends money to the wrong place; everything else is lenient.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::types::{AffiliateId, LinkId, SUB_BYTES_MAX, SUBS};

/// The parameters of a click.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub link: LinkId,
    pub affiliate: AffiliateId,
    /// Decoded; of a repeated sub id the first counts.
    pub subs: [Option<Cow<'a, str>>; SUBS],
    /// How many of them were cut to [`SUB_BYTES_MAX`].
    pub subs_cut: usize,
}

/// Why a request is no click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Not a path under `/sl`.
    OtherPath,
    Missing(Parameter),
    Repeated(Parameter),
    Malformed(Parameter),
}

/// A parameter that every click must have, once and well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    Id,
    AffId,
}

impl QueryError {
    /// One sentence for the visitor, naming the parameter.
    pub const fn sentence(self) -> &'static str {
        match self {
            QueryError::OtherPath => "There is nothing here; clicks go to /sl?id=…&aff_id=….\n",
            QueryError::Missing(Parameter::Id) => "The parameter id is missing.\n",
            QueryError::Missing(Parameter::AffId) => "The parameter aff_id is missing.\n",
            QueryError::Repeated(Parameter::Id) => "The parameter id is given more than once.\n",
            QueryError::Repeated(Parameter::AffId) => "The parameter aff_id is given more than once.\n",
            QueryError::Malformed(Parameter::Id) => {
                "The parameter id must be a number from 1 to 4294967295 in plain digits.\n"
            }
            QueryError::Malformed(Parameter::AffId) => {
                "The parameter aff_id must be a number from 1 to 4294967295 in plain digits.\n"
            }
        }
    }
}

/// Reads path and query as they stand on the request line.
pub fn parse<'a>(path: &'a str, query: Option<&'a str>) -> Result<Query<'a>, QueryError> {
    let mut link = id_in_path(path)?;
    let mut affiliate = None;
    let mut subs: [Option<Cow<'a, str>>; SUBS] = Default::default();
    let mut subs_cut = 0;
    for (name, value) in pairs(query.unwrap_or_default()) {
        match name.as_bytes() {
            b"id" => set_once(&mut link, value, Parameter::Id)?,
            b"aff_id" => set_once(&mut affiliate, value, Parameter::AffId)?,
            [b's', digit @ b'1'..=b'5'] => {
                let sub = &mut subs[usize::from(digit - b'1')];
                if sub.is_none() {
                    let (text, cut) = decode_sub(value);
                    *sub = Some(text);
                    subs_cut += usize::from(cut);
                }
            }
            _ => {}
        }
    }
    let link = link.ok_or(QueryError::Missing(Parameter::Id))?;
    let affiliate = affiliate.ok_or(QueryError::Missing(Parameter::AffId))?;
    Ok(Query {
        link: LinkId::parse(link.as_bytes()).ok_or(QueryError::Malformed(Parameter::Id))?,
        affiliate: AffiliateId::parse(affiliate.as_bytes()).ok_or(QueryError::Malformed(Parameter::AffId))?,
        subs,
        subs_cut,
    })
}

/// Whether a request to this path is a click, however malformed.
pub fn is_click_path(path: &str) -> bool {
    id_in_path(path).is_ok()
}

/// The id of `/sl/301`; `None` for `/sl`.
fn id_in_path(path: &str) -> Result<Option<&str>, QueryError> {
    match path.strip_prefix("/sl").ok_or(QueryError::OtherPath)? {
        "" | "/" => Ok(None),
        rest => match rest.strip_prefix('/') {
            Some(id) if !id.contains('/') => Ok(Some(id)),
            _ => Err(QueryError::OtherPath),
        },
    }
}

/// Names and values, as they stand there. In one pass: the parts are so short that to search for the end of each costs more.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut equals = None;
        let mut end = text.len();
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'=' if equals.is_none() => equals = Some(at),
                b'&' => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        rest = text.get(end + 1..);
        let pair = &text[..end];
        Some(equals.map_or((pair, ""), |equals| (&pair[..equals], &pair[equals + 1..])))
    })
}

fn set_once<'a>(slot: &mut Option<&'a str>, value: &'a str, parameter: Parameter) -> Result<(), QueryError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::Repeated(parameter)),
    }
}

/// Percent-decodes, `+` is a space, bytes that are not UTF-8 become U+FFFD; then cuts at a character boundary.
/// Also answers whether it had to cut.
fn decode_sub(raw: &str) -> (Cow<'_, str>, bool) {
    let decoded = if raw.bytes().any(|byte| byte == b'+' || byte == b'%') {
        let spaced = raw.replace('+', " ");
        Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
    } else {
        Cow::Borrowed(raw)
    };
    if decoded.len() <= SUB_BYTES_MAX {
        return (decoded, false);
    }
    let end = decoded.floor_char_boundary(SUB_BYTES_MAX);
    let cut = match decoded {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    };
    (cut, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(target: &str) -> Result<(u32, u32), QueryError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        parse(path, query).map(|query| (query.link.value(), query.affiliate.value()))
    }

    #[test]
    fn both_forms() {
        for target in [
            "/sl?id=301&aff_id=67890",
            "/sl?aff_id=67890&id=301",
            "/sl/?id=301&aff_id=67890",
            "/sl/301?aff_id=67890",
            "/sl?utm=x&&id=301&aff_id=67890&ID=9",
        ] {
            assert_eq!(ids(target), Ok((301, 67890)), "{target}");
        }
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (target, error) in [
            ("/sl", QueryError::Missing(Parameter::Id)),
            ("/sl?aff_id=1", QueryError::Missing(Parameter::Id)),
            ("/sl?id=1", QueryError::Missing(Parameter::AffId)),
            ("/sl?id=1&id=1&aff_id=1", QueryError::Repeated(Parameter::Id)),
            ("/sl/1?id=1&aff_id=1", QueryError::Repeated(Parameter::Id)),
            ("/sl?id=1&aff_id=1&aff_id=2", QueryError::Repeated(Parameter::AffId)),
            ("/sl?id=&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id=%31&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id=0&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id=01&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id=+1&aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?id=1&aff_id=4294967296", QueryError::Malformed(Parameter::AffId)),
            ("/sl/abc?aff_id=1", QueryError::Malformed(Parameter::Id)),
            ("/sl?%69d=1&aff_id=1", QueryError::Missing(Parameter::Id)),
            ("/", QueryError::OtherPath),
            ("/slow?id=1&aff_id=1", QueryError::OtherPath),
            ("/sl/1/2?aff_id=1", QueryError::OtherPath),
            ("/SL?id=1&aff_id=1", QueryError::OtherPath),
        ] {
            assert_eq!(ids(target), Err(error), "{target}");
        }
    }

    #[test]
    fn sub_ids_are_decoded() {
        let query =
            parse("/sl/1", Some("aff_id=1&s1=a+b%26c&s2=%C3%BC&s3=&s4=%ff&s5=plain&s1=second&s6=x")).unwrap();
        let subs: Vec<Option<&str>> = query.subs.iter().map(Option::as_deref).collect();
        assert_eq!(subs, [Some("a b&c"), Some("ü"), Some(""), Some("\u{fffd}"), Some("plain")]);
        assert_eq!(query.subs_cut, 0);
    }

    #[test]
    fn long_sub_ids_are_cut_at_a_character() {
        let raw = format!("aff_id=1&s1={}&s2={}", "a".repeat(300), "%C3%BC".repeat(200));
        let query = parse("/sl/1", Some(&raw)).unwrap();
        assert_eq!(query.subs[0].as_deref().map(str::len), Some(255));
        assert_eq!(query.subs[1].as_deref().map(str::len), Some(254));
        assert_eq!(query.subs_cut, 2);
    }
}
