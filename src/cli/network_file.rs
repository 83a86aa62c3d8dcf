//! A whole network as a file, TOML or JSON: six lists of items, each whole, with the API's names.
//!
//! Written: sorted by id, one form for one content, so that two exports can be compared. What a node makes itself, such
//! as `tracking_url`, is not in it. Read: with the line of each item, for errors; what the items say is judged by the API.

use std::fmt::Write;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use toml::Spanned;

/// How a file is written. When it is read, its first character tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Toml,
    Json,
}

/// The items of a file, list by list, in the order of [`LISTS`].
pub struct NetworkFile {
    lists: Vec<Vec<Item>>,
}

struct Item {
    /// The item, in JSON.
    text: String,
    /// From 1.
    line: usize,
}

/// The items of one list, as the API's objects.
pub type Items = Vec<Map<String, Value>>;

/// One list: its name, the members of its items in the order in which they are written, and how many of those are
/// the ids by which items are sorted.
pub struct List {
    pub name: &'static str,
    pub fields: &'static [&'static str],
    ids: usize,
}

/// Reads a file of either format.
pub fn read(text: &str) -> anyhow::Result<NetworkFile> {
    let newlines: Vec<usize> = text.match_indices('\n').map(|(offset, _)| offset).collect();
    let line = |offset: usize| newlines.partition_point(|newline| *newline < offset) + 1;
    let lists =
        if text.trim_start().starts_with('{') { read_json(text, &line)? } else { read_toml(text, &line)? };
    Ok(NetworkFile { lists })
}

/// The items of each list of [`LISTS`] as text.
pub fn write(format: Format, lists: &[Items]) -> String {
    match format {
        Format::Toml => write_toml(lists),
        Format::Json => write_json(lists),
    }
}

/// The members of an item that a file has, sorted with its fellows by their ids.
pub fn arrange(list: &List, items: Items) -> Items {
    let key = |item: &Map<String, Value>| -> Vec<(i64, String)> {
        let ids = list.fields.iter().take(list.ids).map(|name| item.get(*name).unwrap_or(&Value::Null));
        ids.map(|id| (id.as_i64().unwrap_or_default(), id.as_str().unwrap_or_default().to_owned())).collect()
    };
    let mut items: Vec<_> = items
        .into_iter()
        .map(|mut item| {
            item.retain(|name, value| list.fields.contains(&name.as_str()) && !value.is_null());
            item
        })
        .collect();
    items.sort_by_cached_key(key);
    // Pages of a list that changed in between may give a row twice.
    items.dedup_by_key(|item| key(item));
    items
}

impl NetworkFile {
    pub fn items(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }

    /// The body of the import, without the key.
    pub fn body(&self, replace: bool) -> String {
        let mut body = format!("{{\"replace\":{replace}");
        for (list, items) in LISTS.iter().zip(&self.lists) {
            let _ = write!(body, ",\"{}\":[", list.name);
            for (index, item) in items.iter().enumerate() {
                body.push_str(if index == 0 { "" } else { "," });
                body.push_str(&item.text);
            }
            body.push(']');
        }
        body.push('}');
        body
    }

    /// The line of the item that a message of the API begins with: `` `smart_links[17].fallback_url` must … ``.
    pub fn line_of(&self, message: &str) -> Option<usize> {
        let (name, rest) = message.strip_prefix('`')?.split_once('[')?;
        let index: usize = rest.split_once(']')?.0.parse().ok()?;
        let list = LISTS.iter().position(|list| list.name == name)?;
        Some(self.lists.get(list)?.get(index)?.line)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile<'a> {
    #[serde(borrow, default)]
    offers: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    smart_links: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    offer_geo_targets: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    smart_link_offers: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    routing_rules: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    offer_caps: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    offers: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    smart_links: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    offer_geo_targets: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    smart_link_offers: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    routing_rules: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    offer_caps: Vec<Spanned<toml::Table>>,
}

fn read_json(text: &str, line: &impl Fn(usize) -> usize) -> anyhow::Result<Vec<Vec<Item>>> {
    let file: JsonFile<'_> = serde_json::from_str(text).context("it is no network in JSON")?;
    let start = text.as_ptr() as usize;
    let items = |list: Vec<&RawValue>| {
        // Every item is a part of the text, which tells where it begins.
        let offset = |item: &RawValue| item.get().as_ptr() as usize - start;
        list.into_iter().map(|item| Item { text: item.get().to_owned(), line: line(offset(item)) }).collect()
    };
    let JsonFile { offers, smart_links, offer_geo_targets, smart_link_offers, routing_rules, offer_caps } =
        file;
    let lists = [offers, smart_links, offer_geo_targets, smart_link_offers, routing_rules, offer_caps];
    Ok(lists.map(items).into())
}

fn read_toml(text: &str, line: &impl Fn(usize) -> usize) -> anyhow::Result<Vec<Vec<Item>>> {
    let file: TomlFile = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let at = error.span().map(|span| format!("line {}: ", line(span.start))).unwrap_or_default();
            bail!("it is no network in TOML: {at}{}", error.message().replace('\n', ", "));
        }
    };
    let items = |list: Vec<Spanned<toml::Table>>| {
        list.into_iter()
            .map(|item| {
                let line = line(item.span().start);
                Item { text: json_of(toml::Value::Table(item.into_inner())).to_string(), line }
            })
            .collect()
    };
    let TomlFile { offers, smart_links, offer_geo_targets, smart_link_offers, routing_rules, offer_caps } =
        file;
    let lists = [offers, smart_links, offer_geo_targets, smart_link_offers, routing_rules, offer_caps];
    Ok(lists.map(items).into())
}

/// A date that was written without quotes is the text that the API wants.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(date) => date.to_string().replace('T', " ").into(),
        toml::Value::Array(list) => list.into_iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, json_of(value))).collect())
        }
    }
}

/// One item on each line, so that a tool that compares lines compares items.
fn write_json(lists: &[Items]) -> String {
    let mut text = String::from("{");
    for (index, (list, items)) in LISTS.iter().zip(lists).enumerate() {
        let _ = write!(text, "{}\n\"{}\": [", if index == 0 { "" } else { "," }, list.name);
        for (index, item) in items.iter().enumerate() {
            let members: Vec<String> = list
                .fields
                .iter()
                .filter_map(|name| Some(format!("\"{name}\": {}", item.get(*name)?)))
                .collect();
            let _ = write!(text, "{}\n  {{{}}}", if index == 0 { "" } else { "," }, members.join(", "));
        }
        text.push_str(if items.is_empty() { "]" } else { "\n]" });
    }
    text.push_str("\n}\n");
    text
}

fn write_toml(lists: &[Items]) -> String {
    let mut text = String::from(TOML_HEAD);
    for (list, items) in LISTS.iter().zip(lists) {
        for item in items {
            let _ = write!(text, "\n[[{}]]\n", list.name);
            for name in list.fields {
                match item.get(*name) {
                    None => {}
                    // A condition a line reads better than all of them in one.
                    Some(Value::Object(members)) if !members.is_empty() => {
                        for (member, value) in members {
                            let _ = writeln!(text, "{name}.{} = {}", toml_name(member), toml_value(value));
                        }
                    }
                    Some(value) => drop(writeln!(text, "{name} = {}", toml_value(value))),
                }
            }
        }
    }
    text
}

fn toml_name(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { toml_value(&name.into()) }
}

/// JSON's numbers, truth values and escapes are TOML's too, but for one character that TOML wants escaped.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{} = {}", toml_name(name), toml_value(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        value => value.to_string().replace('\u{7f}', "\\u007F"),
    }
}

/// Every list, in the order in which items refer to each other.
pub const LISTS: [List; 6] = [
    List {
        name: "offers",
        fields: &[
            "offer_id",
            "offer_name",
            "offer_status",
            "offer_url",
            "payout",
            "expiration_date",
            "advertiser_id",
            "vertical_id",
            "payout_type",
            "revenue",
            "revenue_type",
            "currency_id",
            "session_hours",
            "preview_url",
            "offer_description",
        ],
        ids: 1,
    },
    List {
        name: "smart_links",
        fields: &[
            "smart_link_id",
            "smart_link_name",
            "affiliate_id",
            "smart_link_status",
            "rotation_type",
            "cap_aware",
            "fallback_url",
        ],
        ids: 1,
    },
    List { name: "offer_geo_targets", fields: &["offer_id", "action", "countries"], ids: 2 },
    List {
        name: "smart_link_offers",
        fields: &["smart_link_id", "offer_id", "offer_weight", "priority"],
        ids: 2,
    },
    List {
        name: "routing_rules",
        fields: &["rule_id", "smart_link_id", "offer_id", "priority", "offer_weight", "conditions"],
        ids: 1,
    },
    // Its name is its id; the number is the node's own.
    List {
        name: CAPS,
        fields: &[
            "offer_id",
            "affiliate_id",
            "cap_type",
            "cap_interval",
            "cap_amount",
            "time_zone",
            "send_alert_only",
        ],
        ids: 4,
    },
];

/// The list that a smartlink from before there were caps has no call for.
pub const CAPS: &str = "offer_caps";

const TOML_HEAD: &str = "# A network of links and offers; `smartlink import` puts it into a node.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_items_in_both_formats() {
        let toml = "# a network\n[[offers]]\noffer_id = 1\n\n[[offers]]\noffer_id = 2\nexpiration_date = 2027-01-31T23:59:59\n";
        let json = "{\n\"offers\": [\n  {\"offer_id\": 1},\n\n  {\"offer_id\": 2}\n]}";
        for (text, lines) in [(toml, [2, 5]), (json, [3, 5])] {
            let file = read(text).unwrap();
            assert_eq!(file.items(), 2);
            assert_eq!(file.line_of("`offers[0].offer_name` is missing"), Some(lines[0]), "{text}");
            assert_eq!(file.line_of("`offers[1]` cannot be read"), Some(lines[1]), "{text}");
            assert_eq!(file.line_of("`offers[2]` x"), None);
            assert_eq!(file.line_of("no list"), None);
        }
        assert!(read(toml).unwrap().body(true).contains("\"expiration_date\":\"2027-01-31 23:59:59\""));
    }

    #[test]
    fn what_is_no_network_is_refused_with_its_line() {
        for (text, said) in [
            ("[[ofers]]\n", "unknown field `ofers`"),
            ("[[offers]]\noffer_id = \n", "line 2"),
            ("{\"ofers\": []}", "unknown field `ofers`"),
            ("{\n\"offers\": [}", "line 2"),
        ] {
            let error = format!("{:#}", read(text).err().unwrap());
            assert!(error.contains(said) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn toml_reads_as_it_was_written() {
        let item = serde_json::json!({
            "offer_id": 1, "offer_name": "ü \"quoted\" \\ \n \u{7f} \u{1}", "payout": 45.0, "revenue": 1e-7,
        });
        let lists = LISTS.iter().map(|_| Vec::new()).collect::<Vec<_>>();
        let lists = [vec![vec![item.as_object().unwrap().clone()]], lists[1..].to_vec()].concat();
        let back = read(&write(Format::Toml, &lists)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&back.lists[0][0].text).unwrap(), item);
        let back = read(&write(Format::Json, &lists)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&back.lists[0][0].text).unwrap(), item);
    }
}
