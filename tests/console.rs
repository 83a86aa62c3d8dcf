//! The console over HTTP: who gets in, what each page says against what the API says, and that what came from outside
//! is text in it. What needs a browser is in tests/browser.rs.

mod support;

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use support::cake::Cake;
use support::http::{Answer, Connection, Request};
use support::node::{Node, Setup};
use support::stub::{Stub, offer};
use support::wait;

const TOKEN: &str = "a-token-of-the-tests-3f1c9a";

/// Every page for which nothing has to be there.
const PAGES: [&str; 5] =
    ["/console/", "/console/links", "/console/offers", "/console/caps", "/console/snapshots"];

fn get(node: &Node, target: &str) -> Answer {
    ask(node, &Request::new("GET", target))
}

/// With the node's own address as `Host`, unless the request has another.
fn ask(node: &Node, request: &Request) -> Answer {
    let has_host = request.to_bytes().windows(6).any(|bytes| bytes.eq_ignore_ascii_case(b"host: "));
    let request =
        if has_host { request.clone() } else { request.clone().and("Host", &node.admin.to_string()) };
    Connection::to(node.admin).ask(&request)
}

fn form(target: &str, fields: &[(&str, &str)]) -> Request {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Request::new("POST", target).with("Content-Type", "application/x-www-form-urlencoded").body(body)
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
    let resolved = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    resolved.iter().fold(text, |text, (entity, character)| text.replace(entity, character))
}

/// The numbers of the links that a page of the list shows, in its order.
fn listed(answer: &Answer) -> Vec<u32> {
    const HEAD: &str = "<td class=\"number\"><a href=\"/console/links/";
    let rows = answer.body.split(HEAD).skip(1);
    rows.map(|row| row.split('"').next().unwrap().parse().unwrap()).collect()
}

/// The value of the form's hidden token.
fn csrf(answer: &Answer) -> String {
    let (_, rest) = answer.body.split_once("name=\"csrf\" value=\"").expect("the page has a form");
    rest.split('"').next().unwrap().to_owned()
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").expect("a cookie is set");
    set.split(';').next().unwrap().to_owned()
}

fn create(node: &Node, call: &str, parameters: Value) -> Value {
    let mut parameters = parameters;
    parameters["api_key"] = node.key().into();
    let request = Request::new("POST", &format!("/api/2/{call}"))
        .with("Content-Type", "application/json")
        .body(parameters.to_string());
    let answer = ask(node, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn create_link(node: &Node, name: &str, affiliate: u32) -> u64 {
    let created =
        create(node, "smart_link.json", json!({"smart_link_name": name, "affiliate_id": affiliate}));
    created["response"]["smart_link_id"].as_u64().unwrap()
}

fn create_offer(node: &Node, name: &str) -> u64 {
    let offer = json!({"offer_name": name, "offer_url": "https://o.example.com/?r=#reqid#", "offer_status": "active"});
    create(node, "offer.json", offer)["offer"]["offer_id"].as_u64().unwrap()
}

fn wait_for_links(node: &Node, links: usize) {
    wait::until("the links to be live", || {
        node.metrics().0.contains(&format!("smartlink_snapshot_links {links}\n")).then_some(())
    });
}

#[test]
fn every_page_is_there_and_lets_nothing_foreign_in() {
    let node = Setup::demo().start_ready();
    for target in
        PAGES.into_iter().chain(["/console/links/301", "/console/overview.json", "/console/nothing"])
    {
        let answer = get(&node, target);
        let wanted = if target.ends_with("nothing") { 404 } else { 200 };
        assert_eq!(answer.status, wanted, "{target}: {answer:?}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in
            ["default-src 'none'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{target}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
        for inline in ["<script>", " style=", " onclick=", "<style"] {
            assert!(!answer.body.contains(inline), "{target} has {inline}");
        }
        let foreign = answer.body.split("=\"").skip(1).find(|rest| rest.starts_with("http"));
        assert_eq!(foreign, None, "{target} names another place");
    }
    let answer = get(&node, "/console");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/console/")));
}

#[test]
fn assets_are_kept_for_good_and_named_by_what_they_are() {
    let node = Setup::demo().start_ready();
    let page = get(&node, "/console/");
    let assets: BTreeSet<&str> =
        page.body.split('"').filter(|text| text.starts_with("/console/assets/")).collect();
    assert_eq!(assets.len(), 5, "{assets:?}");
    for asset in assets {
        let answer = get(&node, asset);
        assert_eq!(answer.status, 200, "{asset}");
        assert!(answer.header("cache-control").unwrap().contains("immutable"), "{asset}");
        let kind = answer.header("content-type").unwrap();
        let wanted = ["css", "javascript", "svg"].iter().any(|wanted| kind.contains(wanted));
        assert!(wanted && !answer.body.is_empty(), "{asset} is {kind}");
    }
    assert_eq!(get(&node, "/console/assets/console-0000000000000000.css").status, 404);
    assert_eq!(get(&node, "/console/assets/..%2fconsole.css").status, 404);
}

#[test]
fn with_a_token_nothing_is_shown_before_the_login() {
    let node = Setup::demo().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    for target in PAGES {
        let answer = get(&node, target);
        let next: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
        let login = format!("/console/login?next={next}");
        assert_eq!((answer.status, answer.header("location")), (303, Some(login.as_str())), "{target}");
        assert!(answer.body.is_empty(), "{answer:?}");
    }
    assert_eq!(get(&node, "/console/overview.json").status, 401);
    assert_eq!(ask(&node, &form("/console/logout", &[])).status, 401);

    let page = get(&node, "/console/login?next=/console/links");
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("<nav"), "{page:?}");
    let login = form("/console/login", &[("token", TOKEN), ("next", "/console/links")]);
    let answer = ask(&node, &login);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/console/links")), "{answer:?}");
    let set = answer.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/console"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "there is no TLS: {set}");
    assert!(!set.contains(TOKEN), "{set}");
    let session = cookie(&answer);

    let with_cookie = |target: &str| ask(&node, &Request::new("GET", target).with("Cookie", &session));
    for target in PAGES {
        assert_eq!(with_cookie(target).status, 200, "{target}");
    }
    let page = with_cookie("/console/");
    assert!(page.body.contains("Log out") && !page.body.contains(TOKEN));

    // A form of no page of ours, of a page of another session, and of this one.
    let other = csrf(&{
        let other = cookie(&ask(&node, &form("/console/login", &[("token", TOKEN)])));
        ask(&node, &Request::new("GET", "/console/").with("Cookie", &other))
    });
    for wrong in ["", "x", other.as_str()] {
        let logout = form("/console/logout", &[("csrf", wrong)]).with("Cookie", &session);
        assert_eq!(ask(&node, &logout).status, 403, "{wrong:?}");
    }
    assert_eq!(with_cookie("/console/").status, 200, "the session goes on");
    let logout = form("/console/logout", &[("csrf", &csrf(&page))]).with("Cookie", &session);
    let answer = ask(&node, &logout);
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(with_cookie("/console/").status, 303, "the session is over");

    // Behind a proxy with TLS the browser says so.
    let host = node.admin.to_string();
    let over_tls = login.with("Origin", &format!("https://{host}"));
    assert!(ask(&node, &over_tls).header("set-cookie").unwrap().ends_with("; Secure"));
    // Nobody is sent on to another site.
    for next in ["https://evil.example/", "//evil.example/console/", "/console/\\evil"] {
        let answer = ask(&node, &form("/console/login", &[("token", TOKEN), ("next", next)]));
        assert_eq!(answer.header("location"), Some("/console/"), "{next}");
    }
    assert!(!node.log().contains(TOKEN));
}

#[test]
fn wrong_tokens_are_refused_and_then_slowed_down() {
    let node = Setup::demo().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    let guess = |token: &str| ask(&node, &form("/console/login", &[("token", token)]));
    for wrong in ["", "x", &TOKEN[1..], "a-token-of-the-tests-3f1c9b", &format!("{TOKEN}x")] {
        let answer = guess(wrong);
        assert_eq!(answer.status, 401, "{wrong:?}");
        assert!(answer.header("set-cookie").is_none());
        assert!(text(&answer).contains("This is not the admin token"));
        assert!(
            wrong.is_empty() || wrong == "x" || !answer.body.contains(wrong),
            "what was typed is not shown"
        );
    }
    for token in ["x", TOKEN] {
        let answer = guess(token);
        assert_eq!(answer.status, 429, "the right one, too: {answer:?}");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=21).contains(&seconds), "{seconds}");
    }
    // Both are counted, and one line tells of all of them, from where they came, and nothing of what was typed.
    let metrics = Request::new("GET", "/metrics").with("Authorization", &format!("Bearer {TOKEN}"));
    let metrics = ask(&node, &metrics).body;
    for (outcome, count) in [("accepted", 0), ("refused", 5), ("limited", 2), ("failed", 0)] {
        let line = format!("smartlink_console_logins_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let log = node.log();
    let told = log.matches("a login to the console by the admin token was refused to 127.0.0.1: ").count();
    assert!((1..=2).contains(&told), "{log}");
    assert!(!log.contains("-token-of-the-tests"), "{log}");
    // Who is slowed down at the login is not kept from the rest.
    assert_eq!(get(&node, "/livez").status, 200);
}

#[test]
fn a_form_of_another_site_is_refused() {
    let node = Setup::demo().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    let login = form("/console/login", &[("token", TOKEN)]);
    let host = node.admin.to_string();
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "none"),
    ] {
        let answer = ask(&node, &login.clone().with(name, value));
        assert_eq!(answer.status, 403, "{name}: {value}");
        assert!(answer.header("content-security-policy").is_some());
    }
    let ours = login.with("Origin", &format!("http://{host}")).with("Sec-Fetch-Site", "same-origin");
    assert_eq!(ask(&node, &ours).status, 303);
}

#[test]
fn a_web_page_cannot_ask_a_node_without_a_token_for_a_refresh() {
    let node = Setup::demo().start_ready();
    let refresh = Request::new("POST", "/refresh?force=true");
    let of_a_page = refresh.clone().with("Origin", "https://evil.example");
    let answer = ask(&node, &of_a_page);
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("sent by a web page"), "{answer:?}");
    assert_eq!(ask(&node, &refresh).status, 200);
}

#[test]
fn without_a_token_a_name_that_was_pointed_here_is_refused() {
    let node = Setup::demo().setting("admin.hosts = [\"console.example.com\"]").start_ready();
    let port = node.admin.port();
    let of = |host: &str| ask(&node, &Request::new("GET", "/console/").with("Host", host)).status;
    for host in
        ["rebound.example.com", "rebound.example.com:9180", "localhost.example.com", "127.0.0.1.nip.example"]
    {
        assert_eq!(of(host), 403, "{host}");
    }
    for host in ["127.0.0.1", "localhost", "[::1]", "console.localhost"] {
        assert_eq!(of(&format!("{host}:{port}")), 200, "{host}");
    }
    assert_eq!(of("Console.Example.Com"), 200);
    // And a page that got in by its own name all the same can send nothing.
    let logout = form("/console/logout", &[("csrf", "")]).with("Host", &format!("localhost:{port}"));
    assert_eq!(ask(&node, &logout).status, 403);
    // Behind a proxy that speaks of this machine by its address, the browser's name is the configured one.
    let page = get(&node, "/console/");
    let of_proxy = form("/console/logout", &[("csrf", "x")]).with("Origin", "https://console.example.com");
    let answer = ask(&node, &of_proxy);
    assert!(text(&answer).contains("not of this session"), "it came to the form's token: {answer:?}");
    assert!(!page.body.contains("Log out"), "there is nothing to log out of");
}

#[test]
fn what_came_from_outside_is_text() {
    let node = Setup::new().start_ready();
    let names = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "{{ frame.csrf }} &amp; <b>",
        "Ünïcödé — 链接",
    ];
    let offer = create_offer(&node, "An \"offer\" of <i>them</i> & 'more'");
    for name in names {
        let link = create_link(&node, name, 7);
        let attached = json!({"smart_link_id": link, "offer_id": offer, "offer_weight": 50});
        create(&node, "smart_link_offer.json", attached);
    }
    create(
        &node,
        "routing_rule.json",
        json!({"smart_link_id": 1, "offer_id": offer, "priority": 2, "conditions": {"s1": {"in": ["<script>alert(2)</script>"]}}}),
    );
    create(
        &node,
        "offer_cap.json",
        json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": 10}),
    );
    wait_for_links(&node, names.len());
    let list = get(&node, "/console/links");
    for name in names {
        assert!(text(&list).contains(name), "{name}: {}", list.body);
        let query: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let found = get(&node, &format!("/console/links?q={query}"));
        assert_eq!(listed(&found).len(), 1, "{name}");
        for raw in ["<script>a", "<img", "; <b>", "<i>"] {
            assert!(!found.body.contains(raw) && !list.body.contains(raw), "{raw}");
        }
    }
    let page = wait::until("the rule to be live", || {
        Some(get(&node, "/console/links/1"))
            .filter(|page| text(page).contains("in <script>alert(2)</script>"))
    });
    assert!(text(&page).contains("An \"offer\" of <i>them</i> & 'more'"), "{}", page.body);
    assert!(text(&page).contains(names[0]) && !page.body.contains("<script>a"));
    let caps = wait::until("the cap to be shown", || {
        Some(get(&node, "/console/caps")).filter(|page| page.body.contains("daily clicks"))
    });
    assert!(!caps.body.contains("<i>") && text(&caps).contains("of <i>them</i>"));
    // What is asked for is no markup either.
    for target in ["/console/%3Cscript%3Ea", "/console/links/%3Cscript%3Ea", "/console/links?q=%3Cscript%3Ea"]
    {
        assert!(!get(&node, target).body.contains("<script>a"), "{target}");
    }
}

#[test]
fn the_list_is_the_apis_searched_sorted_and_in_pages() {
    const LINKS: usize = 120;
    let node = Setup::new().start_ready();
    let offer = create_offer(&node, "One");
    // What the list has to say of each: its number, name, affiliate.
    let mut links = Vec::new();
    for index in 0..LINKS {
        let name = format!("{} {}", ["Finance", "travel", "Ärzte"][index % 3], (index * 7919) % 1000);
        let affiliate = 1000 + (index % 5) as u32;
        let id = create_link(&node, &name, affiliate) as u32;
        create(&node, "smart_link_offer.json", json!({"smart_link_id": id, "offer_id": offer}));
        links.push((id, name, affiliate));
    }
    wait_for_links(&node, LINKS);
    // Clicks: the n-th of these links has n that an offer takes, and one that none takes if n is even.
    let busy: Vec<(u32, usize)> = (1..=6).map(|clicks| (links[clicks * 11].0, clicks)).collect();
    for &(id, clicks) in &busy {
        let affiliate = links.iter().find(|link| link.0 == id).unwrap().2;
        for _ in 0..clicks {
            assert_eq!(node.click(&format!("/sl?id={id}&aff_id={affiliate}")).status, 302);
        }
        if clicks % 2 == 0 {
            node.click(&format!("/sl?id={id}&aff_id=99"));
        }
    }
    // All pages of a list, one after another by its links.
    let all = |query: &str| {
        let mut target = format!("/console/links{query}");
        let mut ids = Vec::new();
        loop {
            let page = get(&node, &target);
            assert_eq!(page.status, 200, "{target}");
            ids.extend(listed(&page));
            let Some((_, rest)) = page.body.split_once("rel=\"next\" href=\"") else { return ids };
            let href = rest.split('"').next().unwrap().replace("&#38;", "&");
            target = format!("/console/links{href}");
        }
    };
    let ids = |mut links: Vec<&(u32, String, u32)>, key: fn(&(u32, String, u32)) -> (String, u32)| {
        links.sort_by_key(|link| key(link));
        links.iter().map(|link| link.0).collect::<Vec<u32>>()
    };
    let every = || links.iter().collect::<Vec<_>>();
    assert_eq!(all(""), ids(every(), |link| (String::new(), link.0)));
    assert_eq!(all("?sort=id&dir=desc"), all("").into_iter().rev().collect::<Vec<_>>());
    assert_eq!(all("?sort=name"), ids(every(), |link| (link.1.to_lowercase(), link.0)));
    assert_eq!(all("?sort=affiliate"), ids(every(), |link| (link.2.to_string(), link.0)));
    let ärzte = links.iter().filter(|link| link.1.starts_with("Ärzte")).collect();
    assert_eq!(all("?q=%C3%84RZTE"), ids(ärzte, |link| (String::new(), link.0)));
    let of_affiliate = links.iter().filter(|link| link.2 == 1003).collect();
    assert_eq!(all("?q=1003"), ids(of_affiliate, |link| (String::new(), link.0)));
    assert!(all("?q=nothing+has+this").is_empty());
    // Every column, the other way round, has every link once.
    for sort in ["id", "name", "affiliate", "clicks", "fill"] {
        for dir in ["asc", "desc"] {
            let listed = all(&format!("?sort={sort}&dir={dir}"));
            assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), LINKS, "{sort} {dir}");
            assert_eq!(listed.len(), LINKS, "{sort} {dir}");
        }
    }
    let by_clicks: Vec<u32> = all("?sort=clicks").into_iter().take(busy.len()).collect();
    let clicks = |id: u32| {
        busy.iter().find(|(busy, _)| *busy == id).map(|(_, clicks)| clicks + usize::from(clicks % 2 == 0))
    };
    let counts: Vec<Option<usize>> = by_clicks.iter().map(|&id| clicks(id)).collect();
    assert_eq!(counts, [Some(7), Some(5), Some(5), Some(3), Some(3), Some(1)]);
    let by_fill: Vec<u32> = all("?sort=fill").into_iter().take(busy.len()).collect();
    // The worst first: 2 of 3, 4 of 5, 6 of 7, then those that filled all.
    assert_eq!(by_fill[..3], [busy[1].0, busy[3].0, busy[5].0]);
    // As a reader of screens hears it.
    let page = get(&node, "/console/links?sort=name&dir=desc");
    assert_eq!(page.body.matches("aria-sort=\"descending\"").count(), 1);
    assert_eq!(page.body.matches("aria-current=\"page\"").count(), 1);
    // A page that is not there is the last, and nonsense is the first.
    assert_eq!(listed(&get(&node, "/console/links?page=999")).len(), LINKS % 50);
    assert_eq!(listed(&get(&node, "/console/links?page=-1&sort=x&dir=y")).len(), 50);
}

#[test]
fn a_link_has_the_tracking_url_of_its_affiliate() {
    let shown = |node: &Node| get(node, "/console/links/301").body.replace("&#38;", "&");
    let node = Setup::demo().start_ready();
    let page = shown(&node);
    // It is an address at which clicks are taken.
    for target in ["/sl?id=301&aff_id=67890", "/sl/301?aff_id=67890"] {
        assert!(page.contains(&format!(">http://{}{target}</code>", node.clicks)), "{target}: {page}");
        assert_eq!(node.click(target).status, 302);
    }
    let node = Setup::demo().setting("network.public_base_url = \"https://go.example.com\"").start_ready();
    let page = shown(&node);
    assert!(page.contains(">https://go.example.com/sl?id=301&aff_id=67890</code>"), "{page}");
    assert!(!page.contains(&format!("{}/sl", node.clicks)), "{page}");
}

/// The rows of the list of offers on a page, each as what its cells say.
fn offer_rows(answer: &Answer) -> Vec<Vec<String>> {
    let (_, body) = answer.body.split_once("<tbody>").unwrap();
    let rows = body.split("</tbody>").next().unwrap().split("<tr>").skip(1);
    let cell = |cell: &str| text(&Answer { body: cell.to_owned(), ..answer.clone() }).trim().to_owned();
    rows.map(|row| row.replace("</th>", "</td>").split("</td>").map(cell).collect()).collect()
}

#[test]
fn another_name_is_there_with_the_next_look() {
    let node = Setup::demo().start_ready();
    for (call, name, target) in [
        ("update_smart_link.json", "smart_link", "/console/links/301"),
        ("update_offer.json", "offer", "/console/offers"),
    ] {
        assert_eq!(get(&node, target).status, 200);
        for number in 1..=3 {
            let (id, called) = (if name == "offer" { 1042 } else { 301 }, format!("Another name {number}"));
            let mut fields = json!({});
            fields[format!("{name}_id")] = id.into();
            fields[format!("{name}_name")] = called.clone().into();
            node.post(call, fields);
            wait::until("the name to be shown", || get(&node, target).body.contains(&called).then_some(()));
        }
    }
}

#[test]
fn offers_are_listed_with_their_links_and_caps() {
    const OFFERS: u64 = 60;
    let node = Setup::new().start_ready();
    let offers: Vec<u64> =
        (0..OFFERS).map(|nth| create_offer(&node, &format!("Offer {}", nth % 7))).collect();
    // The n-th of the first five is on n links, on each by a rule, too, which does not count twice.
    for links in 1..=5_usize {
        for _ in 0..links {
            let link = create_link(&node, "Link", 7);
            let entry = json!({"smart_link_id": link, "offer_id": offers[links - 1]});
            create(&node, "smart_link_offer.json", entry.clone());
            let mut rule = entry;
            (rule["priority"], rule["conditions"]) = (0.into(), json!({}));
            create(&node, "routing_rule.json", rule);
        }
    }
    for kind in ["click", "conversion"] {
        let cap = json!({"offer_id": offers[9], "cap_type": kind, "cap_interval": "daily", "cap_amount": 5});
        create(&node, "offer_cap.json", cap);
    }
    let other = json!({"offer_id": offers[8], "offer_status": "inactive", "offer_name": "<b>Ünique",
        "offer_url": "https://elsewhere.example.com/?c={click_id}"});
    create(&node, "update_offer.json", other);
    wait_for_links(&node, 15);
    wait::until("the caps to be known", || {
        let rows = offer_rows(&get(&node, "/console/offers?sort=caps"));
        (rows[0][4] == "2").then_some(())
    });

    let page = get(&node, "/console/offers");
    let rows = offer_rows(&page);
    assert_eq!(rows.len(), 50);
    let shown = |offer: u64| rows.iter().find(|row| row[0] == offer.to_string()).unwrap();
    assert_eq!(shown(offers[2])[1..6], ["Offer 2", "active", "3", "0", "https://o.example.com/?r=#reqid#"]);
    let other = ["<b>Ünique", "inactive", "0", "0", "https://elsewhere.example.com/?c={click_id}"];
    assert_eq!(shown(offers[8])[1..6], other);
    assert!(!page.body.contains("<b>Ü"));
    assert!(page.body.contains(&format!("href=\"/console/offers/{}\"", offers[2])), "no way to its form");
    assert!(page.body.contains(&format!("href=\"/console/caps?q={}\"", offers[9])), "no way to its caps");
    assert!(page.body.contains("href=\"/console/offers\" aria-current=\"page\""), "it is in the navigation");

    let first = |query: &str, column: usize| -> Vec<String> {
        let rows = offer_rows(&get(&node, &format!("/console/offers?{query}")));
        rows.into_iter().take(6).map(|mut row| row.swap_remove(column)).collect()
    };
    assert_eq!(first("sort=links", 3), ["5", "4", "3", "2", "1", "0"]);
    assert_eq!(first("sort=links&dir=asc", 3), ["0"; 6]);
    assert_eq!(first("sort=caps", 4)[..2], ["2", "0"]);
    assert_eq!(first("sort=status&dir=desc", 2)[..2], ["inactive", "active"]);
    assert_eq!(first("sort=name&dir=asc", 1)[0], "<b>Ünique");
    let last = offers.iter().max().unwrap().to_string();
    assert_eq!(first("sort=id&dir=desc", 0)[0], last);
    for query in ["q=%C3%BCNIQUE", "q=elsewhere.EXAMPLE"] {
        assert_eq!(first(query, 0), [offers[8].to_string()], "{query}");
    }
    assert_eq!(first(&format!("q={last}"), 0)[..], [last.as_str()]);
    let next = offer_rows(&get(&node, "/console/offers?page=2"));
    assert_eq!(next.len(), 10);
    assert_eq!(next[9][0], last);
    assert!(text(&get(&node, "/console/offers?q=nothing")).contains("No offer has “nothing”"));
}

#[test]
fn figures_are_those_of_the_clicks() {
    let node = Setup::demo().start_ready();
    for _ in 0..30 {
        assert_eq!(node.click("/sl?id=301&aff_id=67890").status, 302);
    }
    for _ in 0..10 {
        node.click("/sl?id=301&aff_id=1");
    }
    let page = text(&get(&node, "/console/"));
    assert!(page.contains("75.0\u{202f}%") && page.contains("of 40 clicks"), "{page}");
    let link = text(&get(&node, "/console/links/301"));
    assert!(link.contains("75.0\u{202f}%") && link.contains("affiliate_mismatch"), "{link}");
    // As many as were sent to each offer, by the log.
    let log = node.click_log();
    for offer in [1042, 1043, 1044] {
        let count = log.iter().filter(|line| line["offer_id"] == offer).count();
        let row = get(&node, "/console/links/301");
        let (_, row) = row.body.split_once(&format!("<th scope=\"row\">{offer}")).unwrap();
        let row = row.split("</tr>").next().unwrap();
        assert!(row.contains(&format!("<td class=\"number\">{count}</td>")), "{offer}: {count} in {row}");
    }
    // The charts' figures come by themselves, and are of the same clicks.
    let series = wait::until("a sample with the clicks", || {
        let series = get(&node, "/console/overview.json").json();
        let has_clicks = series["offers"].as_array()?.iter().any(|rate| rate.as_f64() > Some(0.0));
        has_clicks.then_some(series)
    });
    let length = series["at"].as_array().unwrap().len();
    for name in ["offers", "fallbacks", "others", "fill_rate"] {
        assert_eq!(series[name].as_array().unwrap().len(), length, "{name}");
    }
    let rates: Vec<f64> = series["fill_rate"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert!(!rates.is_empty() && rates.iter().all(|rate| (0.0..=100.0).contains(rate)), "{rates:?}");
}

#[test]
fn caps_are_bars_of_what_the_ledger_says() {
    let node = Setup::demo().start_ready();
    let cap = |offer: u32, amount: u64| {
        let cap =
            json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": amount});
        create(&node, "offer_cap.json", cap);
    };
    cap(1042, 4);
    cap(1043, 1_000_000);
    let full = wait::until("the small cap to be full", || {
        node.click("/sl?id=301&aff_id=67890");
        Some(get(&node, "/console/caps")).filter(|page| page.body.contains("<svg class=\"bar full\""))
    });
    let rows: Vec<&str> = full.body.split("<tr>").skip(2).collect();
    assert_eq!(rows.len(), 2, "{}", full.body);
    assert!(
        rows[0].contains("1042") && rows[0].contains("width=\"100.00\""),
        "the fullest first: {}",
        rows[0]
    );
    assert!(rows[1].contains("1043") && rows[1].contains("1\u{202f}000\u{202f}000"), "{}", rows[1]);
    let listed =
        ask(&node, &Request::new("GET", &format!("/api/2/offer_caps.json?api_key={}", node.key()))).json();
    assert_eq!(listed["response"]["offer_caps"][0]["used"], 4);
    let link = get(&node, "/console/links/301");
    assert!(text(&link).contains("closed") && link.body.contains("<svg class=\"bar full\""), "{}", link.body);
    assert!(get(&node, "/console/caps?q=1043").body.matches("<svg").count() == 1);
    assert!(text(&get(&node, "/console/caps?q=zzz")).contains("No cap is of “zzz”."));
}

#[test]
fn the_history_tells_what_was_published_and_what_was_not() {
    let node = Setup::demo().start_ready();
    let link = create_link(&node, "A new one", 67_890);
    wait_for_links(&node, 2);
    let history = get(&node, "/console/snapshots");
    assert!(
        text(&history).contains("the whole network") && text(&history).contains("one link"),
        "{}",
        history.body
    );
    assert!(history.body.contains(&format!("<a href=\"/console/links/{link}\">")), "{}", history.body);
    assert!(text(&history).contains("2 (+1) links"), "{}", text(&history));
}

#[test]
fn what_was_refused_or_left_out_is_over_when_the_upstream_is_as_it_was() {
    let stub = Stub::start();
    let node = Setup::of_upstream(&stub.url(), "key").start_ready();
    let shown = || text(&get(&node, "/console/snapshots"));
    let is_well = "nothing is left out";
    node.refresh();
    assert!(shown().contains(is_well), "{}", shown());

    let links = stub.answer_to("smart_links");
    stub.list("smart_links", json!([]));
    node.refresh_with("", 409);
    assert!(
        shown().contains("The newest snapshot is not taken") && !shown().contains(is_well),
        "{}",
        shown()
    );
    stub.answer("smart_links", links);
    assert_eq!(node.refresh()["result"], "unchanged");
    assert!(
        !shown().contains("The newest snapshot is not taken") && shown().contains(is_well),
        "{}",
        shown()
    );
    assert!(shown().contains("refused"), "the history has it: {}", shown());

    // It keeps its last good version: what is live does not change.
    let offers = stub.answer_to("offers");
    stub.list("offers", json!([{"offer": offer(10, "javascript:alert(1)")}]));
    assert_eq!(node.refresh()["result"], "unchanged");
    assert!(shown().contains("Left out of the live table: 1") && !shown().contains(is_well), "{}", shown());
    stub.answer("offers", offers);
    assert_eq!(node.refresh()["result"], "unchanged");
    assert!(!shown().contains("Left out of the live table") && shown().contains(is_well), "{}", shown());

    stub.set_away(true);
    node.failed_refresh();
    assert!(shown().contains("The last refresh failed") && !shown().contains(is_well), "{}", shown());
    stub.set_away(false);
    node.refresh();
    assert!(!shown().contains("The last refresh failed") && shown().contains(is_well), "{}", shown());
}

#[test]
fn an_upstream_that_can_only_be_read_is_shown_so() {
    let cake = Cake::start(3, &[11]);
    let overlay = "[[smart_link_offers]]\nsmart_link_id = 2\noffer_id = 11\n";
    let setup = Setup::of_upstream(&cake.url(), "key");
    let path = setup.path().join("routing.toml");
    std::fs::write(&path, overlay).unwrap();
    let node = setup.setting(&format!("upstream.overlay = {:?}", path.to_str().unwrap())).start_ready();
    let list = get(&node, "/console/links");
    assert_eq!(listed(&list), [1, 2, 3]);
    assert!(text(&list).contains("link 2") && text(&list).contains("can only read"), "{}", text(&list));
    let page = text(&get(&node, "/console/links/2"));
    assert!(page.contains("11") && page.contains("attached") && page.contains("can only read"), "{page}");
    let offers = get(&node, "/console/offers");
    assert_eq!(offer_rows(&offers)[0][..1], ["11"]);
    assert!(text(&offers).contains("can only read") && !offers.body.contains("/console/offers/"));
    // Away: names that are known stay, and the page says what is the matter.
    let key = node.directory().join("upstream-key");
    std::fs::remove_file(key).unwrap();
    assert_eq!(listed(&get(&node, "/console/links")), [1, 2, 3]);
}

#[test]
fn an_upstream_that_is_away_is_told_and_links_have_their_numbers() {
    let upstream = Setup::demo().start_ready();
    let node = Setup::following(&upstream).start_ready();
    drop(upstream);
    let page = get(&node, "/console/links");
    assert_eq!((page.status, listed(&page)), (200, vec![301]), "{}", text(&page));
    assert!(text(&page).contains("Names cannot be brought up to date"), "{}", text(&page));
    assert!(text(&get(&node, "/console/links/301")).contains("Link 301"));
    let offers = offer_rows(&get(&node, "/console/offers"));
    assert_eq!(offers[0][..4], ["1042", "not known", "not known", "1"]);
    let history = wait::until("the failure to be told", || {
        ask(&node, &Request::new("POST", "/refresh").body(""));
        Some(text(&get(&node, "/console/snapshots"))).filter(|page| page.contains("failed"))
    });
    assert!(history.contains("failed"));
}

#[test]
fn many_look_at_once() {
    let node = Setup::demo().start_ready();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for target in PAGES.into_iter().cycle().take(20) {
                    assert_eq!(get(&node, target).status, 200, "{target}");
                }
            });
        }
    });
}
