//! The sample requests of CAKE's own pages, sent to the embedded API, and its answers compared with the samples there:
//! field for field, with the same types and the same nesting.
//!
//! A file of `cake_samples/` holds one: the article and its heading, a network that the request fits, the request, and
//! the answer. Fields, types, nesting, ids and amounts are the page's; names and hosts are ours. Where our answer is
//! another one, the file says so: what stands `elsewhere`, what has an `other_value`, what we answer `further`. A
//! difference that a file tells and that is none fails, too.

#[path = "support/api.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use support::{Api, KEY};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    page: String,
    /// A body of `import_network.json`.
    network: Value,
    method: String,
    call: String,
    parameters: Map<String, Value>,
    answer: Map<String, Value>,
    /// A field beside `request_status` on the page, and where we have it.
    #[serde(default)]
    elsewhere: BTreeMap<String, String>,
    /// Fields of our answer by their path, and what we answer where the page has another text.
    #[serde(default)]
    other_value: BTreeMap<String, Value>,
    /// Fields of our answer by their path, which the page does not show.
    #[serde(default)]
    further: BTreeSet<String>,
}

#[test]
fn every_sample_of_cakes_pages_is_answered_as_there() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cake_samples")).unwrap() {
        let path = entry.unwrap().path();
        let sample: Sample = serde_json::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        sample.check();
        seen.push(sample.call);
    }
    seen.sort_unstable();
    // `offer.json` and `smart_link_offer.json` have samples, too, which could not be read: see docs/api.md.
    let readable = [
        "offer_geo_targets.json",
        "offers.json",
        "smart_link.json",
        "smart_links.json",
        "update_offer.json",
        "update_offer_geo_targets.json",
    ];
    assert_eq!(seen, readable);
}

impl Sample {
    fn check(&self) {
        let api = Api::start();
        api.post("import_network.json", self.network.clone()).success();
        let ours = match self.method.as_str() {
            "GET" => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                for (name, value) in &self.parameters {
                    query.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
                }
                api.get(&format!("{}?{}", self.call, query.finish())).success()
            }
            // As on the page, with the key in the body.
            "POST" => api.post(&self.call, self.parameters.clone().into()).success(),
            method => panic!("{}: {method}", self.page),
        };
        let mut wanted = Value::Object(Map::new());
        for (name, value) in &self.answer {
            let place = self.elsewhere.get(name).unwrap_or(name);
            put(&mut wanted, place, value.clone());
        }
        let mut told = Told::default();
        self.compare("", &wanted, &ours, &mut told);
        assert_eq!(told.problems, [""; 0], "{}:\n{ours}", self.page);
        assert_eq!(told.further, self.further, "{}: what we answer further:\n{ours}", self.page);
        assert_eq!(told.other_value, self.other_value, "{}: what we answer otherwise:\n{ours}", self.page);
        assert!(self.elsewhere.keys().all(|name| self.answer.contains_key(name) && ours.get(name).is_none()));
        assert!(!ours.to_string().contains(KEY), "{}", self.page);
    }

    fn compare(&self, path: &str, wanted: &Value, ours: &Value, told: &mut Told) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match (wanted, ours) {
            (Value::Object(wanted), Value::Object(ours)) => {
                for (name, value) in wanted {
                    match ours.get(name) {
                        Some(ours) => self.compare(&below(name), value, ours, told),
                        None => told.problems.push(format!("{} is not answered", below(name))),
                    }
                }
                let further = ours.keys().filter(|name| !wanted.contains_key(*name));
                told.further.extend(further.map(|name| below(name)));
            }
            (Value::Array(wanted), Value::Array(ours)) if wanted.len() == ours.len() => {
                for (wanted, ours) in wanted.iter().zip(ours) {
                    self.compare(path, wanted, ours, told);
                }
            }
            _ if wanted == ours => {}
            (Value::String(_), Value::String(_)) if self.other_value.contains_key(path) => {
                told.other_value.insert(path.to_owned(), ours.clone());
            }
            _ => told.problems.push(format!("{path} is {ours}; on the page it is {wanted}")),
        }
    }
}

/// In what our answer is another one.
#[derive(Default)]
struct Told {
    problems: Vec<String>,
    further: BTreeSet<String>,
    other_value: BTreeMap<String, Value>,
}

/// Puts a value at a path: `response.smart_links`.
fn put(into: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(into, |place, name| {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        &mut place[name]
    });
    *place = value;
}
