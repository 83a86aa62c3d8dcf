//! What a node exposes, against docs/metrics.md; and that everything which names a metric or an alert (rules, dashboards, the
//! runbook) names one that there is.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::json;
use support::certificate::Authority;
use support::http::Request;
use support::node::Setup;
use support::wait;

/// A metric: its type, and its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

#[test]
fn the_reference_is_what_a_node_exposes() {
    let setup = Setup::demo();
    let (chain, key) = Authority::new().certificate("go.example.com");
    fs::write(setup.path().join("chain.pem"), chain).unwrap();
    fs::write(setup.path().join("key.pem"), key).unwrap();
    let node = setup
        .setting("edge.tls_listen = [\"127.0.0.1:0\"]")
        .setting("edge.tls_certificate_file = \"chain.pem\"")
        .setting("edge.tls_key_file = \"key.pem\"")
        .start_ready();
    // Whatever is of an affiliate says so.
    let cap = json!({"offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily", "cap_amount": 9});
    node.post("offer_cap.json", cap);
    node.ask(&Request::click("/sl?id=301&aff_id=67890"));
    let reference = reference();
    assert!(reference.len() > 30, "{reference:?}");
    // These are looked at by others than the one who answers.
    let late = [
        "smartlink_cap_remaining",
        "smartlink_filesystem_size_bytes",
        "smartlink_certificate_expires_timestamp_seconds",
    ];
    let told = wait::until("caps, disks and the certificate to be shown", || {
        let told = families(&node.metrics().0);
        late.iter().all(|name| told.contains_key(*name)).then_some(told)
    });
    let bytes = |name: &str| {
        node.metrics().value(&format!("smartlink_filesystem_{name}_bytes{{directory=\"click_log\"}}"))
    };
    assert!(0 < bytes("avail") && bytes("avail") <= bytes("size"), "{} of {}", bytes("avail"), bytes("size"));
    for (name, family) in &told {
        assert_eq!(reference.get(name), Some(family), "{name} in docs/metrics.md");
    }
    let gone: Vec<_> = reference.keys().filter(|name| !told.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md tells of {gone:?}");

    // A new outcome is in the fill rate, or it is not; somebody has to say.
    let metrics = node.metrics().0;
    let outcomes: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("smartlink_clicks_total{outcome=\"")?.split('"').next())
        .collect();
    let text = document("docs/metrics.md");
    let in_the_reference: BTreeMap<&str, bool> = text
        .lines()
        .filter_map(|line| {
            let [_, outcome, _, counted, _] = *line.split('|').map(str::trim).collect::<Vec<_>>() else {
                return None;
            };
            let outcome = outcome.strip_prefix('`')?.strip_suffix('`')?;
            let is_counted = match counted {
                "filled" | "not filled" => true,
                "left out" => false,
                _ => return None,
            };
            Some((outcome, is_counted))
        })
        .collect();
    assert_eq!(outcomes, in_the_reference.keys().copied().collect());
    let persons: BTreeSet<&str> =
        in_the_reference.iter().filter(|(_, is_counted)| **is_counted).map(|(outcome, _)| *outcome).collect();
    let rules = document("config/prometheus/smartlink.rules.yml");
    let sets: Vec<BTreeSet<&str>> = rules
        .split("outcome=~\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().split('|').filter(|outcome| *outcome != "bot").collect())
        .collect();
    assert!(sets.len() >= 5);
    assert!(sets.iter().all(|set| *set == persons), "{persons:?} in smartlink.rules.yml");
}

#[test]
fn every_metric_that_is_named_is_there() {
    let reference = reference();
    let recorded: BTreeSet<String> = document("config/prometheus/smartlink.rules.yml")
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("- record: ")?.to_owned()))
        .collect();
    for name in [
        "config/prometheus/smartlink.rules.yml",
        "config/prometheus/smartlink.alerts.yml",
        "config/grafana/dashboards/smartlink-tier.json",
        "config/grafana/dashboards/smartlink-link.json",
        "docs/runbook.md",
        "docs/caps.md",
        "docs/routing.md",
        "docs/click-log.md",
    ] {
        let text = document(name);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let named: Vec<&str> =
            words.filter(|word| word.contains("smartlink_") || word.starts_with("process_")).collect();
        assert!(!named.is_empty(), "{name}");
        for word in named.iter().map(|word| word.trim_end_matches(':')) {
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .unwrap_or(word);
            let is_there = match word.contains(':') {
                true => recorded.contains(word),
                false => reference.contains_key(word) || reference.contains_key(of_histogram),
            };
            // Groups of rules, which are named in the same style.
            let is_group = text.contains(&format!("- name: {word}\n"));
            assert!(is_there || is_group, "{name}: there is no {word}");
        }
    }
}

#[test]
fn every_alert_has_its_section_and_both_of_its_cases() {
    let alerts = document("config/prometheus/smartlink.alerts.yml");
    let rules: Vec<&str> = alerts.split("      - alert: ").skip(1).collect();
    assert!(rules.len() >= 20, "{}", rules.len());
    let tests: String = ["caps", "files", "nodes", "records", "routing", "snapshot"]
        .map(|name| document(&format!("config/prometheus/tests/{name}.yml")))
        .join("\n");
    let cases: Vec<&str> = tests.split("  - name: ").skip(1).collect();
    let runbook = document("docs/runbook.md");
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = rule.lines().next().unwrap();
        names.insert(name);
        assert!(
            rule.contains(&format!("\n          runbook: docs/runbook.md#{}\n", name.to_lowercase())),
            "{rule}"
        );
        for part in ["        # ", "        expr: |", "severity: ", "summary: ", "description: "] {
            assert!(
                rule.contains(part) || name == "SmartlinkNodeDown" && part.contains('#'),
                "{part} of {rule}"
            );
        }
        let fires = |case: &&&str| case.starts_with(&format!("{name} fires")) && case.contains("exp_labels:");
        let is_quiet =
            |case: &&&str| case.starts_with(&format!("{name} is quiet")) && case.contains("exp_alerts: []\n");
        for case in [cases.iter().find(fires), cases.iter().find(is_quiet)] {
            let case = case.unwrap_or_else(|| panic!("{name} lacks a case that fires, or one that is quiet"));
            assert!(case.contains(&format!("      - alertname: {name}\n")), "{case}");
        }
        let section = runbook.split("\n## ").find(|section| section.starts_with(&format!("{name}\n")));
        let section = section.unwrap_or_else(|| panic!("{name} has no section in docs/runbook.md"));
        for part in ["**Means.**", "**Look.**", "**Do.**", "**Do not.**"] {
            assert!(section.contains(part), "{name}: {part}");
        }
    }
    let sections: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## ").filter(|name| name.starts_with("Smartlink")))
        .collect();
    assert_eq!(sections, names);

    let recorded = document("config/prometheus/smartlink.rules.yml");
    let values = document("config/prometheus/tests/recording.yml");
    for name in recorded.lines().filter_map(|line| line.trim().strip_prefix("- record: ")) {
        let expected = [format!("expr: '{name}'"), format!("expr: 'round({name}, ")];
        assert!(
            expected.iter().any(|expected| values.contains(expected)),
            "{name} is not held against a value"
        );
    }
}

/// The tables of docs/metrics.md that have metrics.
fn reference() -> Families {
    let text = document("docs/metrics.md");
    let mut families = Families::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        assert!(!meaning.is_empty(), "{name} means something");
        let labels = labels
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(|label| label.trim_matches('`').to_owned());
        let before = families.insert(name.to_owned(), (kind.to_owned(), labels.collect()));
        assert!(before.is_none(), "{name} is there twice");
    }
    families
}

/// What a scrape has.
fn families(scrape: &str) -> Families {
    let mut families = Families::new();
    for line in scrape.lines() {
        if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of_type.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let name = match families.contains_key(name) {
            true => name,
            false => name.rsplit_once('_').unwrap().0,
        };
        let (_, known) = families.get_mut(name).unwrap_or_else(|| panic!("{line}"));
        // No value of a label here has a comma.
        let labels =
            labels.rsplit_once('}').unwrap().0.split(',').map(|label| label.split('=').next().unwrap());
        known.extend(labels.filter(|label| *label != "le").map(str::to_owned));
    }
    families
}

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}
