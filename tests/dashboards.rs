//! `config/prometheus` and `config/grafana` against a real Prometheus that scrapes a real node under traffic: every query of the
//! dashboards and of the runbook, every rule and every series that an alert looks at has data. And what `promtool` says of the rules.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use support::certificate::Authority;
use support::http::{CRAWLER, PHONE, Request};
use support::node::{Node, Setup};
use support::prometheus::{Server, encoded, is_installed};
use support::wait;

#[test]
fn every_query_has_data() {
    if !is_installed() {
        return;
    }
    let (node, capped) = node();
    let directory = tempfile::tempdir().unwrap();
    let prometheus = Server::start(&configuration(directory.path(), &node));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| click_until(&is_over, &node, capped));
        // Whatever comes of it, the clicks end.
        let _end = End(&is_over);
        let rules = rules(&prometheus);
        let queries: Vec<Query> =
            dashboards().iter().flat_map(queries).chain(runbook()).chain(rules).collect();
        assert!(queries.len() > 120, "{}", queries.len());
        for Query { of, expression } in &queries {
            wait::until(&format!("data of {of}: {expression}"), || {
                has_data(&prometheus, expression).then_some(())
            });
        }
        for (of, metric, label) in dashboards().iter().flat_map(choices) {
            wait::until(&format!("a choice for {of}"), || {
                let series = prometheus.ask(&format!("/api/v1/series?match[]={}", encoded(&metric)));
                series.as_array().unwrap().iter().any(|series| series[&label].is_string()).then_some(())
            });
        }
        let firing = prometheus.query("ALERTS{alertstate=\"firing\"}");
        assert!(firing.is_empty(), "a node that is well: {firing:?}");
    });
}

#[test]
fn promtool_accepts_the_configuration_and_its_rules() {
    if !is_installed() {
        return;
    }
    let directory = root().join("config/prometheus");
    let passes = |arguments: &[&str]| {
        let told = Command::new("promtool").args(arguments).current_dir(&directory).output().unwrap();
        assert!(told.status.success(), "promtool {arguments:?}: {told:?}");
    };
    passes(&["check", "config", "prometheus.yml"]);
    passes(&["check", "rules", "--lint-fatal", "smartlink.rules.yml", "smartlink.alerts.yml"]);
    let tests = files(&directory.join("tests"), "yml");
    assert!(tests.len() >= 7, "{tests:?}");
    // Some take seconds, of one core each.
    thread::scope(|scope| {
        for test in &tests {
            scope.spawn(|| passes(&["test", "rules", test.to_str().unwrap()]));
        }
    });
}

#[test]
fn dashboards_can_be_provisioned() {
    for Dashboard { name, json } in dashboards() {
        assert_eq!(json["schemaVersion"], 41, "{name}");
        // Given by Grafana.
        assert_eq!(json["id"], Value::Null, "{name}");
        assert_eq!(json["uid"], name.as_str());
        let variables = json["templating"]["list"].as_array().unwrap();
        assert_eq!(
            (&variables[0]["name"], &variables[0]["type"]),
            (&json!("datasource"), &json!("datasource"))
        );
        let known: BTreeSet<&str> =
            variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        let wanted: &[&str] = if name == "smartlink-link" { &["instance", "link"] } else { &["instance"] };
        assert!(wanted.iter().all(|name| known.contains(name)), "{name}: {known:?}");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in json["panels"].as_array().unwrap() {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title} has the id of another");
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
                assert!(
                    place("x") + x < 24 && cells.insert((place("x") + x, place("y") + y)),
                    "{name}: {title}"
                );
            }
            if panel["type"] != "row" {
                let queries = panel["targets"].as_array().unwrap();
                assert!(!queries.is_empty(), "{name}: {title}");
                let sources = queries.iter().chain([panel]).map(|part| &part["datasource"]["uid"]);
                assert!(sources.into_iter().all(|source| source == "${datasource}"), "{name}: {title}");
            }
        }
    }
}

#[test]
fn what_is_asked_for_is_what_is_looked_up() {
    let looked_up =
        "up + on (job) (sum by (job) (smartlink_a{job=~\"smart.*\", b=\"}\"}[5m]) / a:b:c offset 1d > 3)";
    assert_eq!(selectors(looked_up), ["up", "smartlink_a{job=~\"smart.*\", b=\"}\"}", "a:b:c"]);
    assert!(!is_number(&json!({"value": [0, "NaN"]})) && is_number(&json!({"value": [0, "0"]})));
}

/// A query, and whose it is.
struct Query {
    of: String,
    expression: String,
}

/// A file of `config/grafana/dashboards`.
struct Dashboard {
    name: String,
    json: Value,
}

/// Ends the clicks, also in a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Relaxed: the next click, or the one after it, sees it.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With everything that has series: TLS, caps, and a link whose only offer has one that is soon full.
fn node() -> (Node, i64) {
    let setup = Setup::demo();
    let (chain, key) = Authority::new().certificate("go.example.com");
    fs::write(setup.path().join("chain.pem"), chain).unwrap();
    fs::write(setup.path().join("key.pem"), key).unwrap();
    let node = setup
        .setting("edge.tls_listen = [\"127.0.0.1:0\"]")
        .setting("edge.tls_certificate_file = \"chain.pem\"")
        .setting("edge.tls_key_file = \"key.pem\"")
        .start_ready();
    let daily =
        json!({"offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1_000_000});
    node.post("offer_cap.json", daily);
    let offer = node.create_offer("https://shop.example.com/full");
    let link = node.create_link(json!({"affiliate_id": 67890}));
    node.attach(link, offer);
    let full = json!({"offer_id": offer, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": 1});
    node.post("offer_cap.json", full);
    (node, link)
}

/// A person, a bot, a probe, and links and affiliates that there are not, in turn.
fn click_until(is_over: &AtomicBool, node: &Node, capped: i64) {
    let person = Request::click("/sl?id=301&aff_id=67890");
    let of = |target: &str| Request::click(target);
    let turns = [
        person.clone(),
        person.clone().with("User-Agent", PHONE),
        person.clone().with("User-Agent", CRAWLER),
        person.clone().with("Sec-Purpose", "prefetch"),
        of("/sl?id=301&aff_id=11111"),
        of("/sl?id=999&aff_id=67890"),
        of("/sl?id=bad&aff_id=67890"),
        of(&format!("/sl?id={capped}&aff_id=67890")),
    ];
    let mut connection = node.connect();
    // Relaxed: see `End`.
    for request in turns.iter().cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
        connection.ask(request);
        // Some hundred a second are enough, and leave the core to others.
        thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The configuration as it is shipped, but for where the node is and for times: a test does not wait for minutes.
fn configuration(directory: &Path, node: &Node) -> PathBuf {
    let shipped = root().join("config/prometheus");
    for name in ["smartlink.rules.yml", "smartlink.alerts.yml"] {
        let rules = fs::read_to_string(shipped.join(name)).unwrap();
        let quick: Vec<&str> = rules.lines().filter(|line| !line.starts_with("    interval: ")).collect();
        fs::write(directory.join(name), quick.join("\n")).unwrap();
    }
    let mut text = fs::read_to_string(shipped.join("prometheus.yml")).unwrap();
    for (from, to) in [
        ("scrape_interval: 15s", "scrape_interval: 200ms"),
        ("evaluation_interval: 15s", "evaluation_interval: 200ms"),
        ("127.0.0.1:9180", &node.admin.to_string()),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        text = text.replace(from, to);
    }
    let path = directory.join("prometheus.yml");
    fs::write(&path, text).unwrap();
    path
}

/// What each rule records, and each series that it and each alert looks at, once all of them have been evaluated without an error.
fn rules(prometheus: &Server) -> Vec<Query> {
    let groups = wait::until("all rules to be evaluated", || {
        let groups = prometheus.ask("/api/v1/rules")["groups"].clone();
        let rules: Vec<Value> = groups
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect();
        for rule in &rules {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    let mut queries = Vec::new();
    for rule in groups {
        let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let looks_at = selectors(query);
        assert!(!looks_at.is_empty(), "{rule}");
        if rule["type"] == "recording" {
            queries.push(Query { of: name.to_owned(), expression: name.to_owned() });
        }
        queries.extend(looks_at.into_iter().map(|expression| Query { of: name.to_owned(), expression }));
    }
    queries
}

/// The queries of a dashboard, as Grafana would send them for the demonstration's link.
fn queries(dashboard: &Dashboard) -> Vec<Query> {
    let Dashboard { name, json } = dashboard;
    let panels = json["panels"].as_array().unwrap().iter();
    let of_panels = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].to_string(), target["expr"].as_str().unwrap()))
    });
    let annotations = json["annotations"]["list"].as_array().unwrap().iter();
    // It is there to be empty: a node that does not start anew is not annotated.
    let of_annotations = annotations.filter_map(|annotation| {
        Some((annotation["name"].to_string(), annotation["expr"].as_str()?.trim_end_matches(" > 0")))
    });
    of_panels
        .chain(of_annotations)
        .map(|(title, expression)| {
            let mut expression = expression.to_owned();
            for (variable, value) in [
                ("$__rate_interval", "1m"),
                ("$__range", "5m"),
                ("$instance", ".*"),
                ("$job", ".*"),
                ("$link", "301"),
                // There is no day before.
                (" offset 1d", ""),
            ] {
                expression = expression.replace(variable, value);
            }
            assert!(!expression.contains('$'), "{name}: {title}: {expression}");
            Query { of: format!("{name}: {title}"), expression }
        })
        .collect()
}

/// The queries of docs/runbook.md.
fn runbook() -> Vec<Query> {
    let text = fs::read_to_string(root().join("docs/runbook.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 10, "{blocks:?}");
    let of = "docs/runbook.md";
    blocks
        .iter()
        .map(|block| Query { of: of.to_owned(), expression: block.replace(" offset 1d", "") })
        .collect()
}

/// Where the choices of each variable come from: whose, the series, the label.
fn choices(dashboard: &Dashboard) -> Vec<(String, String, String)> {
    let variables = dashboard.json["templating"]["list"].as_array().unwrap().iter();
    let choices = variables.filter(|variable| variable["type"] == "query").map(|variable| {
        let query = variable["definition"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).unwrap_or_else(|| panic!("{query}"));
        let of = format!("{}: {}", dashboard.name, variable["name"]);
        (of, series.replace("$job", ".*"), label.to_owned())
    });
    choices.collect()
}

fn has_data(prometheus: &Server, expression: &str) -> bool {
    // NaN is what nothing divided by nothing comes to.
    prometheus.query(expression).iter().any(is_number)
}

fn is_number(series: &Value) -> bool {
    series["value"][1].as_str().and_then(|value| value.parse().ok()).is_some_and(f64::is_finite)
}

/// The series that an expression looks at: metrics with their labels, without ranges and offsets.
fn selectors(expression: &str) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '{' || first == '"' {
            // Labels without a metric are of none that was taken below.
            rest = &rest[braced_or_quoted(rest)..];
            continue;
        }
        let length = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        let name = &rest[..length];
        rest = &rest[length.max(first.len_utf8())..];
        if name.starts_with("smartlink_")
            || name.starts_with("process_")
            || name.contains(':')
            || name == "up"
        {
            let labels = if rest.starts_with('{') { braced_or_quoted(rest) } else { 0 };
            found.push(format!("{name}{}", &rest[..labels]));
            rest = &rest[labels..];
        }
    }
    found
}

/// How long the quoted text is, or what is in braces, with which this begins.
fn braced_or_quoted(text: &str) -> usize {
    let mut is_quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if at > 0 && text.starts_with('"') => return at + 1,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return at + 1,
            _ => {}
        }
    }
    panic!("no end: {text}")
}

fn dashboards() -> Vec<Dashboard> {
    let paths = files(&root().join("config/grafana/dashboards"), "json");
    let dashboards: Vec<Dashboard> = paths
        .iter()
        .map(|path| Dashboard {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
        })
        .collect();
    assert_eq!(dashboards.len(), 2);
    dashboards
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|other| other == extension))
        .collect();
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
