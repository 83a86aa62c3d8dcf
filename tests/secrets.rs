//! Who may ask the admin listener, and where secrets do not show: neither in the log at its most talkative, nor in metrics, nor
//! in an answer, nor in what other users of the machine see of the process, nor in files that they may read.

mod command;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use command::Desk;
use serde_json::json;
use support::http::{Answer, Connection, Request};
use support::node::{Node, Setup};
use support::stub::Stub;

const TOKEN: &str = "canary-of-the-token-41c0";
const KEY: &str = "canary-of-the-key-9b2c";
const MAC_KEY: &str = "ca9a41ca9a41ca9a41ca9a41ca9a41caca9a41ca9a41ca9a41ca9a41ca9a41ca";

/// Whatever asks for the token.
const GUARDED: [(&str, &str); 4] =
    [("GET", "/"), ("GET", "/metrics"), ("GET", "/explain?id=1&aff_id=7"), ("POST", "/refresh")];

fn ask(node: &Node, method: &str, target: &str, authorization: &[&str]) -> Answer {
    let mut request = Request::new(method, target).with("Host", &node.admin.to_string()).body("");
    for value in authorization {
        request = request.and("Authorization", value);
    }
    Connection::to(node.admin).ask(&request)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A node with a key for its upstream, a key for click ids and an admin token, each from a file or the environment.
fn guarded(stub: &Stub) -> Node {
    let setup = Setup::of_upstream(&stub.url(), KEY).variable("SMARTLINK_ADMIN_TOKEN", TOKEN);
    let path = setup.path().join("mac-key");
    fs::write(&path, format!("{MAC_KEY}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    setup
        .variable("SMARTLINK_CLICK_ID_KEY_FILE", path.to_str().unwrap())
        .variable("RUST_LOG", "trace")
        .start_ready()
}

/// Neither whole, nor all but its last characters.
#[track_caller]
fn shows_no_secret(what: &str, text: &str) {
    for secret in [TOKEN, KEY, MAC_KEY] {
        let most = &secret[..secret.len() - 4];
        assert!(!text.contains(most), "{what} shows {secret}:\n{text}");
    }
}

#[test]
fn without_the_token_nothing_is_told_but_health() {
    let node = guarded(&Stub::start());
    let right = bearer(TOKEN);
    let wrong = [
        vec![],
        vec![String::new()],
        vec!["Bearer ".to_owned()],
        vec![TOKEN.to_owned()],
        vec![bearer(&TOKEN[1..])],
        vec![bearer(&TOKEN[..TOKEN.len() - 1])],
        vec![bearer(&format!("{TOKEN}x"))],
        vec![bearer(&TOKEN.to_uppercase())],
        vec![bearer(KEY)],
        vec![format!("Basic {TOKEN}")],
        // Of two, the first counts; a proxy in front may have checked the other.
        vec![bearer("x"), right.clone()],
    ];
    for (method, target) in GUARDED {
        for given in &wrong {
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            let refused = ask(&node, method, target, &given);
            assert_eq!(refused.status, 401, "{method} {target} {given:?}: {refused:?}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{refused:?}");
            assert!(!refused.body.contains("smartlink_"), "{refused:?}");
            shows_no_secret("a refusal", &format!("{refused:?}"));
        }
        let told = ask(&node, method, target, &[&right]);
        assert_eq!(told.status, 200, "{method} {target}: {told:?}");
    }
    // Nor by another way of asking: a path in another spelling, a token in the query.
    for target in ["//metrics", "/metrics/", "/%6detrics", "/Metrics", &format!("/metrics?token={TOKEN}")] {
        let refused = ask(&node, "GET", target, &[]);
        assert!([401, 404].contains(&refused.status), "{target}: {refused:?}");
        assert!(!refused.body.contains("smartlink_"), "{refused:?}");
    }
    for method in ["HEAD", "POST", "OPTIONS", "PUT"] {
        let refused = ask(&node, method, "/metrics", &[]);
        assert!([401, 405].contains(&refused.status), "{method}: {refused:?}");
    }
    // What supervises a node has no token.
    for target in ["/livez", "/readyz"] {
        assert_eq!(ask(&node, "GET", target, &[]).status, 200, "{target}");
    }
}

#[test]
fn without_a_token_a_name_that_was_pointed_here_is_told_nothing_but_health() {
    let node = Setup::new().setting("admin.hosts = [\"metrics.example.com\"]").start_ready();
    let port = node.admin.port();
    let of = |method: &str, target: &str, host: &str| {
        Connection::to(node.admin).ask(&Request::new(method, target).with("Host", host).body(""))
    };
    for (method, target) in GUARDED {
        for host in ["rebound.example.com", "localhost.example.com", "127.0.0.1.nip.example"] {
            let refused = of(method, target, &format!("{host}:{port}"));
            assert_eq!(refused.status, 403, "{method} {target} {host}: {refused:?}");
            assert!(
                refused.body.contains("admin.hosts") && !refused.body.contains("smartlink_"),
                "{refused:?}"
            );
        }
        for host in ["localhost", "127.0.0.1", "[::1]", "Metrics.Example.Com"] {
            let status = of(method, target, &format!("{host}:{port}")).status;
            // Of a node without links, nothing can be explained.
            assert!([200, 400].contains(&status), "{method} {target} {host}: {status}");
        }
    }
    assert_eq!(Connection::to(node.admin).ask(&Request::new("GET", "/metrics")).status, 403);
    for target in ["/livez", "/readyz"] {
        assert_eq!(of("GET", target, "rebound.example.com").status, 200, "{target}");
    }
    // Whoever has the token is no page of a stranger.
    let node = Setup::new().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    let scrape = Request::new("GET", "/metrics").with("Host", "smartlink-1:9180");
    assert_eq!(Connection::to(node.admin).ask(&scrape.with("Authorization", &bearer(TOKEN))).status, 200);
}

#[test]
fn the_token_does_not_open_the_api_and_a_key_of_the_api_not_the_rest() {
    let node = Setup::new().variable("SMARTLINK_ADMIN_TOKEN", TOKEN).start_ready();
    let offers = |key: &str| ask(&node, "GET", &format!("/api/2/offers.json?api_key={key}"), &[]).status;
    assert_eq!((offers(TOKEN), offers(""), offers(&node.key())), (401, 401, 200));
    assert_eq!(ask(&node, "GET", "/api/2/offers.json", &[&bearer(TOKEN)]).status, 401);
    assert_eq!(ask(&node, "GET", "/metrics", &[&bearer(&node.key())]).status, 401);
    assert_eq!(ask(&node, "GET", "/api/2/offers.json", &[]).status, 401);
}

#[test]
fn secrets_show_nowhere() {
    let stub = Stub::start();
    let node = guarded(&stub);
    let right = bearer(TOKEN);
    for (method, target) in GUARDED {
        shows_no_secret(target, &format!("{:?}", ask(&node, method, target, &[&right])));
    }
    ask(&node, "GET", &format!("/metrics?token={TOKEN}"), &["Bearer x"]);
    ask(&node, "GET", &format!("/explain?id=1&aff_id=7&{TOKEN}=1"), &[]);
    node.click("/sl?id=1&aff_id=7");
    // An upstream that is away, and one that says what it was asked with.
    let repeated = json!({"request_status": format!("no, not with {KEY}"), "message": KEY}).to_string();
    stub.answer("offers", support::stub::Canned::json(&repeated));
    shows_no_secret("a report", &ask(&node, "POST", "/refresh", &[&right]).body);
    stub.set_away(true);
    shows_no_secret("a report", &ask(&node, "POST", "/refresh", &[&right]).body);
    assert!(node.log().contains("TRACE"), "it is not talkative");
    shows_no_secret("the log", &node.log());
    // What every user of the machine sees of a process. Its environment only its own user sees, and root.
    for file in ["cmdline", "comm", "status"] {
        let bytes = fs::read(format!("/proc/{}/{file}", node.id())).unwrap();
        assert!(!bytes.is_empty());
        shows_no_secret(file, &String::from_utf8_lossy(&bytes));
    }
    // Nothing that a node writes holds the secrets that it was given.
    let mut seen = 0;
    each_file(&node.data(), &mut |path| {
        // A socket has nothing in it.
        if !path.is_file() {
            return;
        }
        seen += 1;
        shows_no_secret(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(path).unwrap()));
    });
    assert!(seen > 2, "{seen} files");
}

#[test]
fn no_other_user_reads_what_a_node_keeps() {
    let node = Setup::demo().start_ready();
    node.click("/sl?id=301&aff_id=67890");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.data()), 0o700);
    for name in ["api-key", "click-id-key"] {
        assert_eq!(mode(&node.data().join(name)), 0o600, "{name}");
    }
}

#[test]
fn help_and_check_show_no_secret_of_the_environment() {
    let desk = Desk::new();
    desk.file("mac-key", format!("{MAC_KEY}\n"));
    let variables = [
        ("SMARTLINK_ADMIN_TOKEN", TOKEN),
        ("SMARTLINK_API_KEY", KEY),
        ("SMARTLINK_CLICK_ID_KEY_FILE", "mac-key"),
    ];
    let commands = [
        "serve",
        "check",
        "explain",
        "link",
        "offer",
        "rule",
        "geo-target",
        "cap",
        "export",
        "import",
        "key",
    ];
    for command in commands {
        for flag in ["-h", "--help"] {
            let told = desk.run_with(&variables, &[command, flag]);
            assert_eq!(told.code, Some(0), "{told:?}");
            shows_no_secret(command, &told.stdout);
        }
    }
    let told = desk.run_with(&variables, &["check"]);
    assert!(told.stdout.contains("with a token"), "{told:?}");
    shows_no_secret("check", &(told.stdout + &told.stderr));
    // No flag takes a secret: it would stand in the list of processes.
    let help = desk.run(&["serve", "--help"]).stdout;
    for flag in ["--api-key", "--token", "--admin-token", "--key"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(flag)), "{flag}");
        assert_eq!(desk.run(&["serve", flag, "x"]).code, Some(2));
    }
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let desk = Desk::new();
    for (section, line) in [
        ("caps", format!("ledger = \"me:{KEY}@host:6379\"")),
        ("caps", format!("ledger = \"redis//me:{KEY}@host\"")),
        ("caps", format!("ledger = \"redis://me:{KEY}@host:x\"")),
        ("caps", format!("ledger = redis://me:{KEY}@host")),
        ("caps", format!("ledger = [\"redis://me:{KEY}@host\"]")),
        ("caps", format!("ledgr = \"redis://me:{KEY}@host\"")),
        ("upstream", format!("url = \"https://me:{KEY}@cake.example\"")),
        ("upstream", format!("url = \"https://:{KEY}@cake.example\"")),
        ("upstream", format!("url = \"https://cake.example?api_key={KEY}\"")),
    ] {
        desk.file("smartlink.toml", format!("[{section}]\n{line}\n"));
        for command in ["check", "serve"] {
            let told = desk.run_with(&[("SMARTLINK_API_KEY", "x")], &[command, "--config", "smartlink.toml"]);
            assert_eq!(told.code, Some(2), "{line}: {told:?}");
            shows_no_secret(&line, &(told.stdout + &told.stderr));
        }
    }
    let upstream = format!("https://:{KEY}@cake.example");
    for command in [&["check"][..], &["offer", "list"]] {
        let told =
            desk.run_with(&[("SMARTLINK_API_KEY", "x")], &[command, &["--upstream", &upstream]].concat());
        assert_eq!(told.code, Some(2), "{told:?}");
        shows_no_secret("a flag", &(told.stdout + &told.stderr));
    }
}

#[test]
fn a_public_admin_address_needs_a_token() {
    let desk = Desk::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9180", "[2001:db8::1]:9180", "[::ffff:192.0.2.1]:9180"]
    {
        desk.run(&["serve", "--admin", address]).fails_saying(&["has no token; set SMARTLINK_ADMIN_TOKEN"]);
        let empty = desk.run_with(&[("SMARTLINK_ADMIN_TOKEN", "")], &["serve", "--admin", address]);
        empty.fails_saying(&["token"]);
        // With one, the address is as good as another.
        let of_file = [("SMARTLINK_ADMIN_TOKEN_FILE", desk.file("token", format!("{TOKEN}\n")))];
        let told = desk.run_with(&of_file, &["check", "--admin", address]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stdout.contains("with a token"), "{told:?}");
        let told = desk.run_with(&[("SMARTLINK_ADMIN_TOKEN", TOKEN)], &["check", "--admin", address]);
        assert_eq!(told.code, Some(0), "{told:?}");
    }
    let node = Setup::new()
        .variable("SMARTLINK_ADMIN_TOKEN", TOKEN)
        .on(([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0], 0).into());
    let node = node.start();
    assert_eq!(ask(&node, "GET", "/metrics", &[]).status, 401);
}

/// SECURITY.md says which test shows what.
#[test]
fn what_the_security_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (mut tests, mut files) = (0, 0);
    for (end, _) in page.match_indices("](") {
        let path = page[end + 2..].split([')', '#']).next().unwrap();
        let text = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        files += 1;
        let name = page[..end].rsplit('[').next().unwrap();
        if let Some(test) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) {
            assert!(text.contains(&format!("fn {test}(")), "{path} has no test {test}");
            tests += 1;
        }
    }
    assert!(tests >= 30 && files > tests, "{tests} tests and {files} files are named");
    // And fuzz targets, in the table.
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let mut targets = 0;
    for told in rows.filter_map(|row| row.split("fuzz target").nth(1)) {
        for name in told.split('`').skip(1).step_by(2) {
            assert!(root.join(format!("fuzz/fuzz_targets/{name}.rs")).is_file(), "there is no target {name}");
            targets += 1;
        }
    }
    assert!(targets > 3, "{targets} fuzz targets are named");
}

fn each_file(directory: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(&path, each);
        } else {
            each(&path);
        }
    }
}
