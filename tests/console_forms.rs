//! The console's forms over HTTP: what each does is seen in the API, what it cannot do stands at the field that is wrong,
//! with what was typed kept; and its answer to "why" is the node's own.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};

use support::cake::Cake;
use support::http::{Answer, Connection, Request};
use support::node::{Node, Setup};

fn get(node: &Node, target: &str) -> Answer {
    let request = Request::new("GET", target).with("Host", &node.admin.to_string());
    Connection::to(node.admin).ask(&request.and("Cookie", &session(node)))
}

/// The cookie of one who has given the API's key.
fn session(node: &Node) -> String {
    static SESSIONS: LazyLock<Mutex<HashMap<SocketAddr, String>>> = LazyLock::new(Mutex::default);
    if let Some(cookie) = SESSIONS.lock().unwrap().get(&node.admin) {
        return cookie.clone();
    }
    // That of its own API, or the one it was given for its upstream.
    let upstreams = node.data().parent().unwrap().join("upstream-key");
    let key = std::fs::read_to_string(upstreams).unwrap_or_else(|_| node.key());
    let login = form(node, "/console/login", &[("token".to_owned(), key)]);
    let answer = Connection::to(node.admin).ask(&login);
    let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no login: {}", text(&answer)));
    let cookie = set.split(';').next().unwrap().to_owned();
    SESSIONS.lock().unwrap().insert(node.admin, cookie.clone());
    cookie
}

/// Fills in the form of a page as a browser does: with its hidden fields, and whatever else is not typed as it is.
#[track_caller]
fn send(node: &Node, target: &str, typed: &[(&str, &str)]) -> Answer {
    let page = get(node, target);
    assert_eq!(page.status, 200, "{target}: {page:?}");
    let mut fields = shown(&page);
    for (name, _) in typed {
        fields.retain(|(other, _)| other != name);
    }
    fields.extend(typed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    // Not ticked is not sent.
    fields.retain(|(_, value)| value != UNTICKED);
    post(node, target, &fields)
}

fn post(node: &Node, target: &str, fields: &[(String, String)]) -> Answer {
    Connection::to(node.admin).ask(&form(node, target, fields).and("Cookie", &session(node)))
}

fn form(node: &Node, target: &str, fields: &[(String, String)]) -> Request {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let host = node.admin.to_string();
    Request::new("POST", target)
        .with("Host", &host)
        .with("Origin", &format!("http://{host}"))
        .with("Sec-Fetch-Site", "same-origin")
        .with("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
}

#[test]
fn nothing_is_changed_without_the_key_where_there_is_no_token() {
    let node = Setup::demo().start_ready();
    let ask = |request: Request| Connection::to(node.admin).ask(&request);
    let get = |target: &str| ask(Request::new("GET", target).with("Host", &node.admin.to_string()));
    assert_eq!(get("/console/links/301").status, 200);
    let target = "/console/links/301/edit";
    let sent_away = get(target);
    assert_eq!(sent_away.status, 303);
    let login = sent_away.header("location").unwrap();
    assert_eq!(login, "/console/login?next=%2Fconsole%2Flinks%2F301%2Fedit");
    assert!(text(&get(login)).contains("API key"));
    let fields = shown(&self::get(&node, target));
    assert_eq!(ask(form(&node, target, &fields)).status, 401);
    let wrong = ask(form(&node, "/console/login", &[("token".to_owned(), "no-key".to_owned())]));
    assert_eq!(wrong.status, 401);
    assert!(text(&wrong).contains("not the key of the API"), "{}", text(&wrong));
}

/// The fields of the form in the page, as a browser would send them.
fn shown(page: &Answer) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for tag in page.body.split("<input ").skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let Some(name) = attribute(tag, "name") else { continue };
        let value = attribute(tag, "value").unwrap_or_default();
        if attribute(tag, "type").as_deref() != Some("checkbox")
            || tag.ends_with(" checked")
            || tag.contains(" checked ")
        {
            fields.push((name, value));
        }
    }
    for select in page.body.split("<select ").skip(1).map(|rest| rest.split("</select>").next().unwrap()) {
        let chosen = select.split("<option ").skip(1).find(|option| option.contains(" selected"));
        let chosen = chosen.or_else(|| select.split("<option ").nth(1)).unwrap();
        fields.push((attribute(select, "name").unwrap(), attribute(chosen, "value").unwrap()));
    }
    fields
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) =
        format!(" {tag}").split_once(&format!(" {name}=\"")).map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    Some(resolved(rest.split('"').next().unwrap()))
}

/// What stands in the page as text: no markup, entities resolved.
fn text(answer: &Answer) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for character in answer.body.chars() {
        match character {
            '<' => in_tag = true,
            '>' => in_tag = false,
            character if !in_tag => text.push(character),
            _ => {}
        }
    }
    resolved(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn resolved(text: &str) -> String {
    let entities = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

/// The page to which a form leads, and where that is, without what names the notice.
#[track_caller]
fn followed(node: &Node, answer: &Answer) -> (String, Answer) {
    assert_eq!(answer.status, 303, "{}", text(answer));
    let to = answer.header("location").unwrap();
    let page = get(node, to);
    assert_eq!(page.status, 200, "{to}: {page:?}");
    let (path, _) = to.split_once(['?', '&']).map_or((to, ""), |(path, rest)| (path, rest));
    (path.to_owned(), page)
}

/// What the page says was done.
#[track_caller]
fn done(page: &Answer) -> String {
    let (_, rest) =
        page.body.split_once("id=\"done\"").unwrap_or_else(|| panic!("nothing was done: {}", text(page)));
    let (_, rest) = rest.split_once("</span>").unwrap();
    resolved(rest.split("</p>").next().unwrap().trim())
}

/// Asserts that the form came back with this said at this field, with the focus there, and what was typed kept.
#[track_caller]
fn wrong_at(answer: &Answer, field: &str, said: &str, typed: &[(&str, &str)]) {
    assert_eq!(answer.status, 422, "{}", text(answer));
    let id = format!("field-{}", field.replace('.', "-"));
    let (_, error) = answer
        .body
        .split_once(&format!("id=\"{id}-error\">"))
        .unwrap_or_else(|| panic!("nothing is wrong at {field}: {}", text(answer)));
    let error = resolved(error.split("</span>").next().unwrap());
    assert!(error.contains(said), "{field}: {error}");
    assert!(answer.body.contains(&format!("<a href=\"#{id}\">")), "the summary leads to {field}");
    let (_, rest) = answer.body.split_once(&format!("id=\"{id}\"")).unwrap();
    let tag = rest.split('>').next().unwrap();
    for part in ["aria-invalid=\"true\"", "autofocus", &format!("{id}-error")] {
        assert!(tag.contains(part), "{field} without {part}: {tag}");
    }
    let shown = shown(answer);
    for (name, value) in typed {
        let pair = ((*name).to_owned(), (*value).to_owned());
        assert!(shown.contains(&pair), "{name} is not {value:?} any more: {shown:?}");
    }
}

/// The rows of a list of the API.
#[track_caller]
fn rows(node: &Node, call: &str, list: &str) -> Vec<Value> {
    let mark = if call.contains('?') { '&' } else { '?' };
    let answer = get(node, &format!("/api/2/{call}{mark}api_key={}", node.key())).json();
    let list = if answer[list].is_array() { &answer[list] } else { &answer["response"][list] };
    list.as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

#[track_caller]
fn row(node: &Node, call: &str, list: &str) -> Value {
    let rows = rows(node, call, list);
    assert_eq!(rows.len(), 1, "{call}: {rows:?}");
    rows[0].clone()
}

#[test]
fn a_network_is_made_with_forms_alone() {
    let node = Setup::new().start_ready();
    let answer =
        send(&node, "/console/links/new", &[("smart_link_name", "Trial & <b>"), ("affiliate_id", "7")]);
    let (to, page) = followed(&node, &answer);
    let link = row(&node, "smart_links.json", "smart_links");
    let id = link["smart_link_id"].as_u64().unwrap();
    assert_eq!(to, format!("/console/links/{id}"));
    assert!(done(&page).starts_with(&format!("Link {id} “Trial & <b>” was created.")), "{}", done(&page));
    assert_eq!((&link["smart_link_name"], &link["affiliate_id"]), (&json!("Trial & <b>"), &json!(7)));
    assert_eq!((&link["cap_aware"], &link["rotation_type"]), (&json!(true), &json!("weighted")));

    // An offer that is made for a link is filled in where it is attached.
    let mut offers = Vec::new();
    for (name, weight) in [("One", "60"), ("Two", "20")] {
        let typed =
            [("offer_name", name), ("offer_url", "https://o.example.com/?r=#reqid#"), ("payout", "4.5")];
        let answer = send(&node, &format!("/console/offers/new?link={id}"), &typed);
        assert_eq!(answer.status, 303, "{}", text(&answer));
        let to = answer.header("location").unwrap().to_owned();
        let answer = send(&node, &to, &[("offer_weight", weight)]);
        let (to, page) = followed(&node, &answer);
        assert_eq!(to, format!("/console/links/{id}"));
        assert!(
            done(&page).contains(&format!("with weight {weight} in priority 1. It is live.")),
            "{}",
            done(&page)
        );
        offers.push(rows(&node, "offers.json", "offers").last().unwrap()["offer"].clone());
    }
    assert_eq!((&offers[0]["offer_name"], &offers[0]["payout"]), (&json!("One"), &json!(4.5)));
    let offer = |index: usize| offers[index]["offer_id"].as_u64().unwrap().to_string();
    let attached = rows(&node, "smart_link_offers.json", "smart_link_offers");
    let weights: Vec<_> = attached.iter().map(|entry| entry["offer_weight"].as_i64().unwrap()).collect();
    assert_eq!(weights, [60, 20]);

    let two = offer(1);
    let rule = [
        ("offer_id", two.as_str()),
        ("priority", "0"),
        ("mode.country", "not_in"),
        ("country", "US, CA"),
        ("city", "\"Washington, D.C.\",Paris"),
        ("asn", "64496"),
        ("hours.days", "sat"),
        ("hours.from", "00:00"),
        ("hours.to", "24:00"),
        ("hours.time_zone", "UTC"),
    ];
    let (_, page) = followed(&node, &send(&node, &format!("/console/links/{id}/rules/new"), &rule));
    assert!(done(&page).contains(&format!("offer {two} on link {id}")), "{}", done(&page));
    let made = row(&node, "routing_rules.json", "routing_rules");
    assert_eq!(
        made["conditions"],
        json!({
            "country": {"not_in": ["US", "CA"]}, "city": {"in": ["Washington, D.C.", "Paris"]}, "asn": {"in": [64496]},
            "hours": {"days": ["sat"], "from": "00:00", "to": "24:00", "time_zone": "UTC"},
        })
    );
    assert_eq!(made["priority"], 0);

    let one = offer(0);
    let cap =
        [("offer_id", one.as_str()), ("cap_amount", "100"), ("affiliate_id", "7"), ("time_zone", "UTC")];
    let (to, page) = followed(&node, &send(&node, "/console/caps/new", &cap));
    assert_eq!(to, "/console/caps");
    assert!(done(&page).contains("It is live."), "{}", done(&page));
    let made = row(&node, "offer_caps.json", "offer_caps");
    assert_eq!((&made["cap_amount"], &made["affiliate_id"]), (&json!(100), &json!(7)));
    assert_eq!((&made["cap_type"], &made["cap_interval"]), (&json!("click"), &json!("daily")));
}

#[test]
fn only_what_somebody_changed_is_changed() {
    let node = Setup::demo().start_ready();
    // Somebody else changes something else while this page is open.
    let page = get(&node, "/console/links/301/edit");
    let mut fields = shown(&page);
    node.post("offer.json", json!({"offer_name": "Meanwhile", "offer_url": "https://o.example.com/"}));
    let name = row(&node, "smart_links.json", "smart_links")["smart_link_name"].clone();
    for (name, value) in &mut fields {
        if name == "rotation_type" {
            "even".clone_into(value);
        }
    }
    fields.retain(|(name, _)| name != "cap_aware");
    let (to, page) = followed(&node, &post(&node, "/console/links/301/edit", &fields));
    assert_eq!(to, "/console/links/301");
    let said = done(&page);
    assert!(
        said.contains("Rotation from “weighted” to “even”") && said.contains("from “true” to “false”"),
        "{said}"
    );
    let link = row(&node, "smart_links.json", "smart_links");
    assert_eq!(link["smart_link_name"], name);
    assert_eq!((&link["rotation_type"], &link["cap_aware"]), (&json!("even"), &json!(false)));
    let (_, page) = followed(&node, &send(&node, "/console/links/301/edit", &[]));
    assert_eq!(done(&page), "Link 301: nothing was changed.");
    // What is emptied is taken away.
    followed(&node, &send(&node, "/console/links/301/edit", &[("fallback_url", "")]));
    assert!(row(&node, "smart_links.json", "smart_links")["fallback_url"].is_null());

    let entry = "/console/links/301/offers/1042";
    followed(&node, &send(&node, entry, &[("offer_weight", "7"), ("priority", "5")]));
    let changed = row(&node, "smart_link_offers.json?offer_id=1042", "smart_link_offers");
    assert_eq!((&changed["offer_weight"], &changed["priority"]), (&json!(7), &json!(5)));

    let before = row(&node, "routing_rules.json", "routing_rules");
    let rule = format!("/console/links/301/rules/{}", before["rule_id"]);
    let (_, page) = followed(&node, &send(&node, &rule, &[("offer_weight", "9")]));
    assert!(!done(&page).contains("conditions"), "{}", done(&page));
    let after = row(&node, "routing_rules.json", "routing_rules");
    assert_eq!((&after["offer_weight"], &after["conditions"]), (&json!(9), &before["conditions"]));
    followed(&node, &send(&node, &rule, &[("country", "AT")]));
    let after = row(&node, "routing_rules.json", "routing_rules");
    assert_eq!(after["conditions"]["country"], json!({"in": ["AT"]}));
    assert_eq!(after["conditions"]["device"], before["conditions"]["device"]);

    followed(&node, &send(&node, "/console/offers/1042", &[("offer_status", "inactive"), ("payout", "")]));
    let offer = row(&node, "offers.json?offer_id=1042", "offers")["offer"].clone();
    assert_eq!((&offer["offer_status"], &offer["payout"]), (&json!("inactive"), &Value::Null));

    node.post(
        "offer_cap.json",
        json!({"offer_id": 1043, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5}),
    );
    let cap = "?offer_id=1043&cap_type=click&cap_interval=daily";
    followed(&node, &send(&node, &format!("/console/caps/edit{cap}"), &[("send_alert_only", "true")]));
    let changed = row(&node, "offer_caps.json", "offer_caps");
    assert_eq!((&changed["cap_amount"], &changed["send_alert_only"]), (&json!(5), &json!(true)));
    followed(
        &node,
        &send(
            &node,
            &format!("/console/caps/edit{cap}"),
            &[("cap_amount", "0"), ("send_alert_only", UNTICKED)],
        ),
    );
    let changed = row(&node, "offer_caps.json", "offer_caps");
    assert_eq!((&changed["cap_amount"], &changed["send_alert_only"]), (&json!(0), &json!(false)));
}

/// A page of a form that is open while somebody else changes the same thing.
struct Open {
    target: String,
    fields: Vec<(String, String)>,
}

impl Open {
    #[track_caller]
    fn new(node: &Node, target: &str) -> Self {
        let page = get(node, target);
        assert_eq!(page.status, 200, "{target}: {}", text(&page));
        Self { target: target.to_owned(), fields: shown(&page) }
    }

    fn with(mut self, typed: &[(&str, &str)]) -> Self {
        for (name, value) in typed {
            self.fields.retain(|(other, _)| other != name);
            self.fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        self
    }

    fn send(&self, node: &Node) -> Answer {
        post(node, &self.target, &self.fields)
    }
}

/// Asserts that nothing was saved, that this is told of the field, and that it has this value now.
#[track_caller]
fn overtaken_at(answer: &Answer, field: &str, said: &str, value: &str) {
    assert_eq!(answer.status, 409, "{}", text(answer));
    let id = format!("field-{}", field.replace('.', "-"));
    let (_, news) = answer
        .body
        .split_once(&format!("id=\"{id}-news\">"))
        .unwrap_or_else(|| panic!("nothing is told at {field}: {}", text(answer)));
    let news = resolved(news.split("</span>").next().unwrap());
    assert!(news.contains(said), "{field}: {news}");
    assert!(answer.body.contains(&format!("<a href=\"#{id}\">")), "the summary leads to {field}");
    let (_, tag) = answer.body.split_once(&format!("id=\"{id}\"")).unwrap();
    assert!(tag.split('>').next().unwrap().contains(&format!("{id}-news")), "{field} is not described by it");
    assert!(shown(answer).contains(&(field.to_owned(), value.to_owned())), "{field}: {:?}", shown(answer));
}

#[test]
fn what_somebody_else_changed_is_told_and_not_overwritten() {
    let node = Setup::demo().start_ready();
    let rule = row(&node, "routing_rules.json", "routing_rules")["rule_id"].clone();
    let cap = json!({"offer_id": 1043, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5});
    node.post("offer_cap.json", cap.clone());
    let the_rule = || row(&node, "routing_rules.json", "routing_rules");

    // A rule: a condition and the weight of somebody else, beside the weight that is typed here.
    let target = format!("/console/links/301/rules/{rule}");
    let open = Open::new(&node, &target).with(&[("offer_weight", "33"), ("os", "ios")]);
    let theirs =
        json!({"rule_id": rule, "offer_weight": 44, "conditions": {"country": {"not_in": ["DE", "FR"]}}});
    node.post("update_routing_rule.json", theirs);
    let was = the_rule();
    for typed in [&[][..], &[("do", "preview")]] {
        let answer =
            Open { fields: open.fields.clone(), ..Open::new(&node, &target) }.with(typed).send(&node);
        overtaken_at(&answer, "offer_weight", "to “44” by somebody else. Saving again makes it “33”.", "33");
        overtaken_at(
            &answer,
            "country",
            "to “not in DE,FR” by somebody else. It stands here as it is",
            "DE,FR",
        );
        assert!(shown(&answer).contains(&("mode.country".to_owned(), "not_in".to_owned())));
        assert!(!answer.body.contains("id=\"field-os-news\"") && !answer.body.contains("id=\"problems\""));
        assert_eq!(the_rule(), was, "nothing was saved");
        if typed.is_empty() {
            // Who saves again, knows of it.
            let again = Open { target: target.clone(), fields: shown(&answer) };
            let (_, page) = followed(&node, &again.send(&node));
            assert!(done(&page).contains("Weight from “44” to “33”"), "{}", done(&page));
            let after = the_rule();
            assert_eq!(after["offer_weight"], 33);
            let conditions = json!({"country": {"not_in": ["DE", "FR"]}, "os": {"in": ["ios"]}});
            assert_eq!(after["conditions"], conditions);
            let theirs = json!({"rule_id": rule, "offer_weight": 44, "conditions": was["conditions"]});
            node.post("update_routing_rule.json", theirs);
        }
    }
    // The same list, written otherwise, is no change.
    let target = format!("/console/links/301/rules/{rule}");
    let open = Open::new(&node, &target).with(&[("country", "DE , FR")]);
    let (_, page) = followed(&node, &open.send(&node));
    assert_eq!(done(&page), format!("Rule {rule}: nothing was changed."));

    // An entry, a link, an offer, a cap.
    for (target, typed, call, theirs, field, value) in [
        (
            "/console/links/301/offers/1042",
            ("priority", "7"),
            "smart_link_offer.json",
            json!({"smart_link_id": 301, "offer_id": 1042, "offer_weight": 11}),
            "offer_weight",
            "11",
        ),
        (
            "/console/links/301/edit",
            ("rotation_type", "even"),
            "update_smart_link.json",
            json!({"smart_link_id": 301, "smart_link_name": "Theirs"}),
            "smart_link_name",
            "Theirs",
        ),
        (
            "/console/offers/1042",
            ("offer_name", "Mine"),
            "update_offer.json",
            json!({"offer_id": 1042, "payout": 7.5}),
            "payout",
            "7.5",
        ),
        (
            "/console/caps/edit?offer_id=1043&cap_type=click&cap_interval=daily",
            ("send_alert_only", "true"),
            "offer_cap.json",
            json!({"offer_id": 1043, "cap_type": "click", "cap_interval": "daily", "cap_amount": 9}),
            "cap_amount",
            "9",
        ),
    ] {
        let open = Open::new(&node, target).with(&[typed]);
        node.post(call, theirs);
        let answer = open.send(&node);
        overtaken_at(&answer, field, &format!("to “{value}” by somebody else"), value);
        let kept = (typed.0.to_owned(), typed.1.to_owned());
        assert!(shown(&answer).contains(&kept), "{target}: what was typed is kept");
        let again = Open { target: target.to_owned(), fields: shown(&answer) };
        let (_, page) = followed(&node, &again.send(&node));
        let said = done(&page);
        assert!(said.contains(&format!("“{}”.", typed.1)) && !said.contains(value), "{said}");
    }
    // Two who mean the same are of one mind.
    let open = Open::new(&node, "/console/links/301/offers/1043").with(&[("offer_weight", "21")]);
    node.post("smart_link_offer.json", json!({"smart_link_id": 301, "offer_id": 1043, "offer_weight": 21}));
    let (_, page) = followed(&node, &open.send(&node));
    assert!(done(&page).contains("nothing was changed"), "{}", done(&page));
}

/// Nothing comes between the look at what there is and the writing of it: of many who save at once, one is first, and all
/// others hear of it, whatever else is changed in the network at the same time.
#[test]
fn of_many_who_save_at_once_one_is_first() {
    let node = Setup::demo().start_ready();
    let target = "/console/links/301/offers/1042";
    let opened: Vec<Open> = (1..=8)
        .map(|weight| Open::new(&node, target).with(&[("offer_weight", &weight.to_string())]))
        .collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let saving = opened.iter().map(|open| scope.spawn(|| open.send(&node).status)).collect::<Vec<_>>();
        let elsewhere = json!({"offer_name": "Elsewhere", "offer_url": "https://o.example.com/"});
        (0..5).for_each(|_| drop(node.post("offer.json", elsewhere.clone())));
        saving.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((of(303), of(409)), (1, 7), "{statuses:?}");
    let weight = statuses.iter().position(|status| *status == 303).unwrap() + 1;
    let entry = row(&node, "smart_link_offers.json?offer_id=1042", "smart_link_offers");
    assert_eq!(entry["offer_weight"], weight);
}

#[test]
fn what_is_to_go_is_asked_for_on_a_page_of_its_own() {
    let node = Setup::demo().start_ready();
    node.post(
        "offer_cap.json",
        json!({"offer_id": 1043, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5}),
    );
    let rule = row(&node, "routing_rules.json", "routing_rules")["rule_id"].clone();
    for (target, call, list) in [
        (
            "/console/links/301/offers/1042/remove".to_owned(),
            "smart_link_offers.json?offer_id=1042",
            "smart_link_offers",
        ),
        (format!("/console/links/301/rules/{rule}/remove"), "routing_rules.json", "routing_rules"),
        (
            "/console/caps/remove?offer_id=1043&cap_type=click&cap_interval=daily".to_owned(),
            "offer_caps.json",
            "offer_caps",
        ),
    ] {
        let page = get(&node, &target);
        assert_eq!(page.status, 200, "{target}: {}", text(&page));
        assert_eq!(rows(&node, call, list).len(), 1, "{target}: to look removes nothing");
        let (_, page) = followed(&node, &send(&node, &target, &[]));
        assert!(done(&page).contains("It is live."), "{target}: {}", done(&page));
        assert_eq!(rows(&node, call, list), [] as [Value; 0], "{target}");
        assert_eq!(get(&node, &target).status, 404, "{target}: there is nothing more to remove");
    }
}

#[test]
fn what_somebody_else_changed_is_not_removed_unseen() {
    let node = Setup::demo().start_ready();
    let cap = json!({"offer_id": 1043, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5});
    node.post("offer_cap.json", cap.clone());
    let rule = row(&node, "routing_rules.json", "routing_rules")["rule_id"].clone();
    let more = |mut item: Value, name: &str, value: i64| {
        item[name] = value.into();
        item
    };
    let entry = json!({"smart_link_id": 301, "offer_id": 1042});
    for (target, call, theirs, said) in [
        (
            "/console/links/301/offers/1042/remove".to_owned(),
            "smart_link_offer.json",
            more(entry, "offer_weight", 61),
            "from “60” to “61” by somebody else",
        ),
        (
            format!("/console/links/301/rules/{rule}/remove"),
            "update_routing_rule.json",
            json!({"rule_id": rule, "conditions": {"os": {"in": ["ios"]}}}),
            "to “in ios” by somebody else",
        ),
        (
            "/console/caps/remove?offer_id=1043&cap_type=click&cap_interval=daily".to_owned(),
            "offer_cap.json",
            more(cap, "cap_amount", 6),
            "from “5” to “6” by somebody else",
        ),
    ] {
        let open = shown(&get(&node, &target));
        node.post(call, theirs);
        let answer = post(&node, &target, &open);
        assert!(answer.status == 409 && text(&answer).contains(said), "{target}: {}", text(&answer));
        // Who says so again, knows of it.
        let (_, page) = followed(&node, &post(&node, &target, &shown(&answer)));
        assert!(done(&page).contains("It is live."), "{target}: {}", done(&page));
    }
}

#[test]
fn what_is_wrong_stands_at_its_field_and_what_was_typed_stays() {
    let node = Setup::demo().start_ready();
    let state = || {
        ["smart_links", "smart_link_offers", "routing_rules", "offer_caps", "offers"]
            .map(|list| rows(&node, &format!("{list}.json"), list))
    };
    let before = state();
    let wrong = |target: &str, typed: &[(&str, &str)], field: &str, said: &str| {
        wrong_at(&send(&node, target, typed), field, said, typed);
    };
    let name = ("smart_link_name", "\"><script>alert(1)</script>");
    wrong("/console/links/new", &[name], "affiliate_id", "Affiliate is missing");
    wrong("/console/links/new", &[name, ("affiliate_id", "x&y")], "affiliate_id", "expected a whole number");
    wrong("/console/links/new", &[("affiliate_id", "7")], "smart_link_name", "Name is missing");
    let fallback = [("fallback_url", "http://plain.example.com/")];
    wrong("/console/links/301/edit", &fallback, "fallback_url", "Fallback ");
    wrong("/console/links/301/edit", &[("affiliate_id", "")], "affiliate_id", "expected a whole number");
    wrong("/console/offers/new", &[("offer_name", "One")], "offer_url", "Address is missing");
    wrong("/console/offers/1042", &[("payout", "much")], "payout", "expected a number");
    wrong("/console/offers/1042", &[("expiration_date", "soon")], "expiration_date", "YYYY-MM-DD");
    let attach = "/console/links/301/offers/new";
    wrong(attach, &[("offer_id", "9"), ("offer_weight", "5")], "offer_id", "9 does not exist");
    wrong(attach, &[("offer_id", "1045"), ("offer_weight", "101")], "offer_weight", "from 1 to 100");
    wrong("/console/links/301/offers/1042", &[("priority", "-1")], "priority", "Priority is -1");
    let rule = "/console/links/301/rules/new";
    wrong(rule, &[("country", "US")], "offer_id", "Offer is missing");
    let offer = ("offer_id", "1042");
    wrong(rule, &[offer, ("country", "US,ZZ"), ("mode.country", "not_in")], "country", "\"ZZ\"");
    wrong(rule, &[offer, ("city", "\"New York")], "city", "double quote is not closed");
    wrong(rule, &[offer, ("device", "phone")], "device", "\"phone\"");
    wrong(
        rule,
        &[offer, ("hours.from", "9"), ("hours.to", "17:00"), ("hours.time_zone", "UTC")],
        "hours.from",
        "HH:MM",
    );
    wrong(rule, &[offer, ("hours.from", "09:00"), ("hours.to", "17:00")], "hours.time_zone", "is missing");
    let cap = "/console/caps/new";
    wrong(cap, &[offer], "cap_amount", "Amount is missing");
    wrong(cap, &[offer, ("cap_amount", "5"), ("time_zone", "Mars/Olympus")], "time_zone", "Mars/Olympus");
    assert_eq!(state(), before, "none of it changed anything");
    // A preview says the same, in the same place.
    for (target, typed, field) in [
        (attach, [("offer_id", "1045"), ("offer_weight", "101")], "offer_weight"),
        (attach, [("offer_id", "9"), ("offer_weight", "1")], "offer_id"),
        (rule, [offer, ("country", "ZZ")], "country"),
        ("/console/links/301/edit", [("affiliate_id", "0"), ("rotation_type", "even")], "affiliate_id"),
    ] {
        let sent = [&typed[..], &[("do", "preview")]].concat();
        wrong_at(&send(&node, target, &sent), field, "", &typed);
    }
    assert_eq!(state(), before);

    // Of a cap that is there, a new one would change the amount behind somebody's back.
    node.post(
        "offer_cap.json",
        json!({"offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5}),
    );
    let answer = send(&node, cap, &[offer, ("cap_amount", "9")]);
    assert_eq!(answer.status, 422);
    assert!(text(&answer).contains("There is such a cap already"), "{}", text(&answer));
    assert_eq!(row(&node, "offer_caps.json", "offer_caps")["cap_amount"], 5);
    // The API reads an affiliate's number as a number.
    let of_affiliate = json!({"offer_id": 1043, "affiliate_id": 67890, "cap_type": "click",
        "cap_interval": "daily", "cap_amount": 5});
    node.post("offer_cap.json", of_affiliate);
    let typed = [("offer_id", "1043"), ("affiliate_id", "067890"), ("cap_amount", "9")];
    let answer = send(&node, cap, &typed);
    assert_eq!(answer.status, 422, "{}", text(&answer));
    assert!(text(&answer).contains("There is such a cap already"), "{}", text(&answer));
    assert_eq!(row(&node, "offer_caps.json?offer_id=1043", "offer_caps")["cap_amount"], 5);
    // Of an offer that is attached, attaching would change the weight in the same way.
    for verb in ["save", "preview"] {
        let typed = [offer, ("offer_weight", "5")];
        let answer = send(&node, attach, &[&typed[..], &[("do", verb)]].concat());
        wrong_at(&answer, "offer_id", "Offer 1042 is attached to link 301 already, with weight 60", &typed);
        assert!(
            answer.body.contains("href=\"/console/links/301/offers/1042\""),
            "{verb}: no way to its form"
        );
    }
    assert_eq!(state()[1], before[1]);
    // No field is at fault.
    for target in [
        "/console/links/9/edit",
        "/console/links/x/rules/new",
        "/console/offers/9",
        "/console/links/301/offers/9",
        "/console/links/301/rules/9",
        "/console/caps/edit?offer_id=1042",
        "/console/caps/remove",
    ] {
        assert_eq!(get(&node, target).status, 404, "{target}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let node = Setup::demo().start_ready();
    for (target, typed, fields) in [
        (
            "/console/links/new",
            &[("smart_link_name", ""), ("affiliate_id", "0"), ("fallback_url", "http://plain.example.com/")]
                [..],
            &["smart_link_name", "affiliate_id", "fallback_url"][..],
        ),
        (
            "/console/links/301/edit",
            &[("affiliate_id", "x"), ("fallback_url", "ftp://x"), ("smart_link_name", " ")],
            &["affiliate_id", "fallback_url", "smart_link_name"],
        ),
        (
            "/console/links/301/offers/new",
            &[("offer_id", "9"), ("offer_weight", "101"), ("priority", "-1")],
            &["offer_id", "offer_weight", "priority"],
        ),
        (
            "/console/links/301/offers/1042",
            &[("offer_weight", "101"), ("priority", "soon")],
            &["offer_weight", "priority"],
        ),
        (
            "/console/links/301/offers/1042",
            &[("offer_weight", ""), ("priority", "")],
            &["offer_weight", "priority"],
        ),
        (
            "/console/links/301/rules/new",
            &[
                ("offer_id", "9"),
                ("offer_weight", "101"),
                ("country", "ZZ"),
                ("city", "\"New York"),
                ("device", "phone"),
                ("hours.from", "9"),
                ("hours.time_zone", "Mars/Olympus"),
            ],
            &[
                "offer_id",
                "offer_weight",
                "country",
                "city",
                "device",
                "hours.from",
                "hours.to",
                "hours.time_zone",
            ],
        ),
        (
            "/console/offers/new",
            &[("offer_url", "http://o.example.com/"), ("payout", "much"), ("expiration_date", "soon")],
            &["offer_name", "offer_url", "payout", "expiration_date"],
        ),
        (
            "/console/caps/new",
            &[("offer_id", "9"), ("affiliate_id", "x"), ("cap_amount", "-5"), ("time_zone", "Mars/Olympus")],
            &["offer_id", "affiliate_id", "cap_amount", "time_zone"],
        ),
    ] {
        let answer = send(&node, target, typed);
        assert_eq!(answer.status, 422, "{target}: {}", text(&answer));
        // A preview tries out the very change, and is refused alike.
        if answer.body.contains("value=\"preview\"") {
            let previewed = send(&node, target, &[typed, &[("do", "preview")]].concat());
            assert_eq!((previewed.status, text(&previewed)), (422, text(&answer)), "{target}");
        }
        let wrong: Vec<String> = answer
            .body
            .split("id=\"field-")
            .filter_map(|rest| rest.split('"').next().unwrap().strip_suffix("-error").map(str::to_owned))
            .collect();
        let mut expected: Vec<String> = fields.iter().map(|field| field.replace('.', "-")).collect();
        let mut found = wrong.clone();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{target}: {}", text(&answer));
        assert_eq!(answer.body.matches("<a href=\"#field-").count(), fields.len(), "{target}: the summary");
        assert_eq!(answer.body.matches(" autofocus").count(), 1, "{target}: one field has the focus");
        let shown = shown(&answer);
        for (name, value) in typed {
            let kept = ((*name).to_owned(), value.trim().to_owned());
            assert!(shown.contains(&kept), "{target}: {name} is not kept: {shown:?}");
        }
    }
}

#[test]
fn a_form_of_another_session_changes_nothing() {
    let node = Setup::demo().start_ready();
    let before = rows(&node, "smart_link_offers.json", "smart_link_offers");
    for (target, typed) in [
        ("/console/links/new", "smart_link_name=x&affiliate_id=7"),
        ("/console/links/301/edit", "smart_link_name=x&was.smart_link_name=y"),
        ("/console/offers/new", "offer_name=x&offer_url=https://o.example.com/"),
        ("/console/links/301/offers/new", "offer_id=1045"),
        ("/console/links/301/offers/1042", "offer_weight=1&was.offer_weight=2"),
        ("/console/links/301/offers/1042/remove", ""),
        ("/console/links/301/rules/new", "offer_id=1045"),
        ("/console/links/301/rules/1", "offer_weight=1&was.offer_weight=2"),
        ("/console/links/301/rules/1/remove", ""),
        ("/console/offers/1042", "offer_name=x&was.offer_name=y"),
        ("/console/caps/new", "offer_id=1042&cap_type=click&cap_interval=daily&cap_amount=1"),
        ("/console/caps/edit?offer_id=1042&cap_type=click&cap_interval=daily", "cap_amount=1"),
        ("/console/caps/remove?offer_id=1042&cap_type=click&cap_interval=daily", ""),
    ] {
        for csrf in ["", "&csrf=", "&csrf=0123"] {
            let fields: Vec<(String, String)> =
                url::form_urlencoded::parse(format!("{typed}{csrf}").as_bytes()).into_owned().collect();
            assert_eq!(post(&node, target, &fields).status, 403, "{target} with {csrf:?}");
        }
    }
    assert_eq!(rows(&node, "smart_link_offers.json", "smart_link_offers"), before);
    assert_eq!(rows(&node, "smart_links.json", "smart_links").len(), 1);
}

#[test]
fn a_notice_is_said_by_nobody_else() {
    let node = Setup::demo().start_ready();
    let page = get(&node, "/console/links/301?done=Everything+was+sold");
    assert!(!page.body.contains("Everything") && !page.body.contains("id=\"done\""));
}

#[test]
fn a_preview_says_what_saving_does_and_saves_nothing() {
    let node = Setup::demo().start_ready();
    let generation = || node.refresh()["generation"].clone();
    let before = generation();
    let entry = "/console/links/301/offers/1042";
    let page = send(&node, entry, &[("offer_weight", "10"), ("do", "preview")]);
    assert_eq!(page.status, 200, "{}", text(&page));
    let said = text(&page).replace('\u{202f}', " ");
    for part in
        ["60 → 10", "60.0 % → 20.0 %", "30.0 % → 60.0 %", "10.0 % → 20.0 %", "Nothing has been changed"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        shown(&page).iter().find(|(name, _)| name == "offer_weight").unwrap().1,
        "10",
        "what was typed stays"
    );
    let rule = [
        ("offer_id", "1043"),
        ("priority", "2"),
        ("offer_weight", "100"),
        ("country", "US"),
        ("do", "preview"),
    ];
    let said = text(&send(&node, "/console/links/301/rules/new", &rule)).replace('\u{202f}', " ");
    for part in ["new rule", "country in US", "– → 100", "– → 50.0 %", "60.0 % → 30.0 %"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let link = [("smart_link_status", "inactive"), ("do", "preview")];
    let said = text(&send(&node, "/console/links/301/edit", &link));
    assert!(said.contains("Then: inactive: every click goes to the fallback."), "{said}");
    let said = text(&send(&node, "/console/links/301/edit", &[("do", "preview")]));
    assert!(said.contains("Routing stays as it is."), "{said}");
    let said = text(&get(&node, &format!("{entry}/remove"))).replace('\u{202f}', " ");
    assert!(said.contains("60.0 % → –") && said.contains("30.0 % → 75.0 %"), "{said}");
    assert_eq!(generation(), before, "nothing was published");

    followed(&node, &send(&node, entry, &[("offer_weight", "10")]));
    let said = text(&get(&node, "/console/links/301")).replace('\u{202f}', " ");
    assert!(said.contains("20.0 %") && said.contains("60.0 %"), "{said}");
}

#[test]
fn conditions_are_shown_with_where_they_come_from() {
    let node = Setup::demo().start_ready();
    let rule = row(&node, "routing_rules.json", "routing_rules")["rule_id"].clone();
    let form = format!("/console/links/301/rules/{rule}");
    // Offer 1045 is for GB alone, and the rule is for its mobile visitors.
    followed(&node, &send(&node, &form, &[("country", "")]));
    for page in [get(&node, "/console/links/301"), send(&node, &form, &[("do", "preview")])] {
        assert!(text(&page).contains("country in GB the offer’s"), "{}", text(&page));
    }
    assert!(text(&get(&node, "/console/links/301")).contains("device in mobile the rule’s"));
    let said = text(&get(&node, &form));
    assert!(said.contains("conditions of its own, which hold on every link: country in GB."), "{said}");
    assert!(!text(&get(&node, "/console/links/301/rules/new")).contains("of its own"));
}

#[test]
fn explain_says_what_the_endpoint_says() {
    let node = Setup::demo().start_ready();
    let draw = "draw=0x8000000000000000&at=2026-11-22T14:30:00Z";
    let click = format!("id=301&aff_id=67890&{draw}&ip=192.0.2.1&s1=abc");
    let told = get(&node, &format!("/explain?{click}")).json();
    let page = get(&node, &format!("/console/explain?{click}"));
    let said = text(&page);
    assert_eq!(told["outcome"], "offer");
    let destination = told["destination"].as_str().unwrap();
    for part in [
        destination,
        &format!("The click goes to offer {}", told["offer_id"]),
        "2026-11-22T14:30:00Z",
        "0x8000000000000000",
        "country must be in GB; the click's is",
        "took the click",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("assumed,") && !said.contains(", assumed"));

    // A country in place of an address, and a device in place of a User-Agent.
    let british = "/console/explain?id=301&aff_id=67890&country=GB&device=mobile%3A+iPhone%2C+Safari";
    let said = text(&get(&node, british));
    for part in ["GB, assumed", "The place is assumed", "mobile, ios, safari", "by rule 1", "not reached"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The link that is to be sent gives the same answer.
    let page = get(&node, british);
    let (_, rest) = page.body.split_once("<a href=\"/console/explain?").unwrap();
    let replay = resolved(rest.split('"').next().unwrap());
    let again = get(&node, &format!("/console/explain?{replay}"));
    let of = |answer: &Answer| text(answer).split("Told on what is live").next().unwrap().to_owned();
    assert_eq!(of(&again), of(&page));

    for (query, part) in [
        ("id=9&aff_id=7", "The live table has no such link."),
        ("id=301&aff_id=7", "The link belongs to another affiliate: affiliate 67890."),
    ] {
        let said = text(&get(&node, &format!("/console/explain?{query}")));
        assert!(said.contains(part), "{said}");
    }
    // Everything that is wrong, each at its field, with what was typed.
    let page = get(&node, "/console/explain?id=x&ip=1.2.3&country=us&at=noon&draw=0xg&s1=%22%3E%3Cscript%3E");
    assert_eq!(page.status, 400);
    for (field, said) in [
        ("id", "Link is \"x\"; expected"),
        ("aff_id", "Affiliate is missing"),
        ("ip", "Address is \"1.2.3\"; expected an IP address"),
        ("country", "Country instead is \"us\""),
        ("at", "Time is \"noon\""),
        ("draw", "Draw is \"0xg\""),
    ] {
        let error = page.body.split_once(&format!("id=\"field-{field}-error\">")).unwrap().1;
        assert!(resolved(error).starts_with(said), "{field}");
    }
    let shown = shown(&page);
    assert!(shown.contains(&("s1".to_owned(), "\"><script>".to_owned())), "{shown:?}");
    assert!(!page.body.contains("<script>"));
}

#[test]
fn explain_names_the_cap_that_closes_an_offer() {
    let node = Setup::demo().start_ready();
    for offer in [1042, 1043, 1044] {
        let cap = json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": 0});
        node.post("offer_cap.json", cap);
    }
    node.refresh();
    let said = text(&get(&node, "/console/explain?id=301&aff_id=67890&country=US"));
    for part in [
        "capped",
        "closed by the daily click cap of offer 1042",
        "Every entry for this visitor is closed by a cap",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_upstream_that_cannot_be_changed_is_not_offered_forms() {
    let cake = Cake::start(3, &[11]);
    let node = Setup::of_upstream(&cake.url(), "key").start();
    for target in
        ["/console/links/new", "/console/links/1/edit", "/console/links/1/rules/new", "/console/caps/new"]
    {
        let answer = get(&node, target);
        assert_eq!(answer.status, 409, "{target}: {}", text(&answer));
        assert!(text(&answer).contains("a real CAKE does not have them"), "{}", text(&answer));
    }
    for target in ["/console/links", "/console/caps"] {
        let page = get(&node, target);
        assert!(!page.body.contains("/new\""), "{target} leads to a form");
    }
}

#[test]
fn an_upstream_that_is_away_is_said_to_be() {
    let store = Setup::demo().start_ready();
    let node = Setup::following(&store).start_ready();
    assert_eq!(get(&node, "/console/links/301/edit").status, 200);
    let fields = shown(&get(&node, "/console/links/301/offers/1042"));
    drop(store);
    let answer = post(&node, "/console/links/301/offers/1042", &fields);
    assert_eq!(answer.status, 502, "{}", text(&answer));
    assert!(text(&answer).contains("cannot be reached"), "{}", text(&answer));
}

/// In place of a value: the box is not ticked.
const UNTICKED: &str = "\u{0}";
