//! The commands as a person meets them: help, exit codes, and what is said when something is wrong. Over the real
//! binary.

mod command;

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};
use smartlink::cake::Network;
use socket2::{Domain, Socket, Type};

use command::Desk;

#[test]
fn help_of_every_command_has_examples_that_it_understands() {
    let desk = Desk::new();
    for command in COMMANDS.iter().map(Some).chain([None]) {
        let arguments: Vec<&str> = command.into_iter().copied().chain(["--help"]).collect();
        let told = desk.run(&arguments);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        let (_, examples) = told.stdout.rsplit_once("Examples:\n").expect("there are examples");
        assert!(examples.contains("smartlink"), "{examples}");
        for line in told.stdout.lines() {
            assert!(line.chars().count() <= 100, "too long for a terminal: {line}");
        }
        // A flag of an example is a flag of its command.
        for line in examples.lines().filter(|line| line.contains("smartlink ")) {
            let Some(name) = COMMANDS.iter().find(|name| line.contains(&format!("smartlink {name}"))) else {
                continue;
            };
            let help = desk.run(&[name, "--help"]).stdout;
            let (options, _) = help.split_once("Examples:").unwrap();
            for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(options.contains(flag), "{line}: {name} has no {flag}");
            }
        }
    }
}

#[test]
fn every_variable_is_in_the_help() {
    let help = Desk::new().run(&["serve", "--help"]).stdout;
    for variable in [
        "CONFIG",
        "DATA_DIR",
        "LISTEN",
        "ADMIN",
        "UPSTREAM",
        "CA_FILE",
        "GEO",
        "ASN",
        "TRUST_PROXY",
        "THREADS",
        "API_KEY",
        "API_KEY_FILE",
        "CLICK_ID_KEY_FILE",
        "ADMIN_TOKEN",
        "ADMIN_TOKEN_FILE",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "LOG_FILE",
    ] {
        assert!(help.contains(&format!("SMARTLINK_{variable}")), "{variable}");
    }
}

#[test]
fn version() {
    let told = Desk::new().run(&["--version"]);
    assert_eq!((told.code, told.stdout), (Some(0), format!("smartlink {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn completions_know_commands_and_flags() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let told = desk.run(&["completions", shell]);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
        for word in COMMANDS.iter().chain(&["upstream", "trust-proxy"]) {
            assert!(told.stdout.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn manual_pages_have_their_commands_flags() {
    let desk = Desk::new();
    let whole = desk.run(&["man"]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(whole.stdout.contains(".TH smartlink 1"), "{whole:?}");
    for name in COMMANDS {
        let in_roff = name.replace('-', "\\-");
        assert!(whole.stdout.contains(&format!("smartlink\\-{in_roff}(1)")), "{name}");
        let page = desk.run(&["man", name]);
        assert_eq!(page.code, Some(0), "{page:?}");
        assert!(page.stdout.contains(&format!(".TH smartlink-{name} 1")), "{}", page.stdout);
        for flag in flags_of(&desk, name) {
            assert!(page.stdout.contains(&flag.replace('-', "\\-")), "{name} {flag}");
        }
    }
    desk.run(&["man", "nope"]).fails_saying(&["there is no command \"nope\"", "--help"]);
}

#[test]
fn a_mistyped_command_or_flag_is_told_with_the_usage() {
    let desk = Desk::new();
    for arguments in [&["sevre"][..], &["serve", "--dmo"], &["explain"], &["serve", "--threads", "many"]] {
        let told = desk.run(arguments);
        assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{told:?}");
        assert!(told.stderr.starts_with("error: ") && told.stderr.contains("--help"), "{told:?}");
    }
}

#[test]
fn check_exits_with_0_1_or_2() {
    let desk = Desk::new();
    desk.file("good.toml", "[network]\ndefault_fallback_url = \"https://www.example.com/\"\n");
    let good = ["check", "--strict", "--config", "good.toml", "--geo", DEMO_DATABASE];
    for (arguments, code, said) in [
        (&["check"][..], 0, "warning: geo.database is not set"),
        (&["check", "--strict"], 1, "0 errors, 2 warnings"),
        (&good, 0, "0 errors, 0 warnings"),
        (
            &["check", "--config", desk.file("a.toml", "[edge]\nx = 1\n")],
            2,
            "error: the configuration a.toml, line 2",
        ),
        (
            &["check", "--config", desk.file("b.toml", "[edge]\nbots = \"x\"\n")],
            2,
            "error: edge.bots is \"x\"",
        ),
        (&["check", "--config", "absent.toml"], 2, "error: cannot read the configuration absent.toml"),
        (&["check", "--geo", "absent.mmdb"], 2, "error: cannot read the geo database absent.mmdb"),
        (
            &["check", "--geo", desk.file("bad.mmdb", "x")],
            2,
            "error: the geo database bad.mmdb cannot be used",
        ),
        (&["check", "--snapshot", "absent"], 2, "error: there is no snapshot absent"),
    ] {
        let told = desk.run(arguments);
        assert_eq!((told.code, told.stderr.as_str()), (Some(code), ""), "{told:?}");
        assert!(told.stdout.lines().any(|line| line.starts_with(said)), "{said}: {told:?}");
    }
}

#[test]
fn check_reads_the_key_that_serve_would_send() {
    let told = Desk::new()
        .run_with(&[("SMARTLINK_API_KEY_FILE", "absent")], &["check", "--upstream", "https://cake.example"]);
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stdout.contains("error: cannot read the API key from absent: "), "{told:?}");
}

#[test]
fn check_of_snapshots() {
    let desk = Desk::new();
    desk.file("good.toml", "[network]\ndefault_fallback_url = \"https://www.example.com/\"\n");
    let check = |name: &str| {
        desk.run(&["check", "--strict", "--config", "good.toml", "--geo", DEMO_DATABASE, "--snapshot", name])
    };
    let whole = snapshot(&network(1042));
    let told = check(desk.file("whole", &whole));
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains(": 1 link, 1 entry, 1 offer\n"), "{told:?}");

    let told = check(desk.file("warns", snapshot(&network(7))));
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("warning: offer 7 on smart link 301: the offer is unknown"), "{told:?}");

    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for (name, bytes) in [("flipped", &flipped[..]), ("cut", &whole[..whole.len() / 2]), ("empty", &[])] {
        let told = check(desk.file(name, bytes));
        assert_eq!(told.code, Some(2), "{told:?}");
        assert!(told.stdout.contains(&format!("error: the snapshot {name} is damaged: ")), "{told:?}");
    }
}

#[test]
fn serve_on_a_port_in_use_names_the_address() {
    let (clicks, admin) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (clicks, admin) = (clicks.local_addr().unwrap().to_string(), admin.local_addr().unwrap().to_string());
    let desk = Desk::new();
    desk.run(&["serve", "--listen", &clicks, "--admin", "127.0.0.1:0"]).fails_saying(&[
        &format!("cannot listen for clicks on {clicks}: another process listens there"),
        "--listen",
    ]);
    desk.run(&["serve", "--listen", "127.0.0.1:0", "--admin", &admin]).fails_saying(&[
        &format!("cannot listen for the admin interface on {admin}: another process listens there"),
        "--admin",
    ]);
}

#[test]
fn serve_on_an_address_that_is_elsewhere() {
    Desk::new()
        .run(&["serve", "--listen", "192.0.2.1:8080", "--admin", "127.0.0.1:0"])
        .fails_saying(&["192.0.2.1:8080: this machine has no such address"]);
}

#[test]
fn serve_names_the_file_that_it_cannot_use() {
    let desk = Desk::new();
    desk.file("file", "neither a directory nor a database");
    std::fs::create_dir(desk.path("foreign")).unwrap();
    desk.file("foreign/smartlink.sqlite3", "neither a directory nor a database, but long enough to be one");
    let whole = std::fs::read(DEMO_DATABASE).unwrap();
    desk.file("part.mmdb", &whole[..whole.len() / 2]);
    desk.file("packed.mmdb", b"\x1f\x8b\x08\0");
    for (arguments, said) in [
        (&["--geo", "absent.mmdb"][..], "the geo database absent.mmdb: No such file"),
        (&["--asn", "absent.mmdb"], "the geo database absent.mmdb: No such file"),
        (&["--geo", "part.mmdb"], "the geo database part.mmdb cannot be used: "),
        (&["--geo", "packed.mmdb"], "unpack it"),
        (&["--asn", DEMO_DATABASE], "it is a Country or City database"),
        (&["--config", "absent.toml"], "cannot read the configuration absent.toml: No such file"),
        (&["--data-dir", "file"], "cannot create the data directory file: "),
        (&["--data-dir", "foreign"], "`foreign/smartlink.sqlite3` is not a smartlink store"),
    ] {
        let told = desk.run(&[&["serve"], ON_FREE_PORTS, arguments].concat());
        told.fails_saying(&[said]);
        assert!(!told.stderr.contains(" on http://"), "it looks as if it had served: {told:?}");
    }
}

#[test]
fn serve_names_the_setting_that_it_cannot_use() {
    let desk = Desk::new();
    for (arguments, said) in [
        (&["--listen", "8080"][..], "--listen (SMARTLINK_LISTEN) is \"8080\"; expected an address and port"),
        (&["--admin", "localhost"], "--admin (SMARTLINK_ADMIN) is \"localhost\"; expected"),
        (
            &["--trust-proxy", "10.0.0.0/33"],
            "--trust-proxy (SMARTLINK_TRUST_PROXY) is \"10.0.0.0/33\"; expected",
        ),
        (&["--threads", "1025"], "--threads (SMARTLINK_THREADS) is \"1025\"; expected at most 1024"),
        (&["--upstream", "cake.example"], "--upstream (SMARTLINK_UPSTREAM) is no scheme, host and path"),
        (&["--upstream", "https://cake.example"], "needs an API key; set SMARTLINK_API_KEY"),
        (&["--admin", "0.0.0.0:0"], "has no token; set SMARTLINK_ADMIN_TOKEN"),
        (&["--admin", "[::]:0"], "has no token; set SMARTLINK_ADMIN_TOKEN"),
        (&["--demo", "--upstream", "https://cake.example"], "leave one of the two out"),
    ] {
        desk.run(&[&["serve"], arguments].concat()).fails_saying(&[said]);
    }
}

#[test]
fn serve_names_the_secret_that_it_cannot_read_and_never_shows_one() {
    let desk = Desk::new();
    desk.file("two-lines", "canary\ncanary\n");
    desk.file("token.toml", "[admin]\ntoken_file = \"absent\"\n");
    desk.file("bad-token.toml", "[admin]\ntoken_file = \"two-lines\"\n");
    std::fs::create_dir(desk.path("damaged")).unwrap();
    desk.file("damaged/click-id-key", format!("{}\ncanary\n", "5a".repeat(32)));
    desk.file("ids.toml", "[edge]\nclick_id_key_file = \"absent\"\n");
    for (variables, arguments, said) in [
        (&[("SMARTLINK_API_KEY_FILE", "absent")][..], &[][..], "cannot read the API key from absent: "),
        (&[("SMARTLINK_API_KEY_FILE", "two-lines")], &[], "the API key in two-lines is malformed"),
        (&[("SMARTLINK_API_KEY", "canary canary")], &[], "SMARTLINK_API_KEY is malformed"),
        (&[], &["--config", "token.toml"], "cannot read the admin token from absent: "),
        (&[("SMARTLINK_ADMIN_TOKEN_FILE", "gone")], &[], "cannot read the admin token from gone: "),
        (&[], &["--config", "bad-token.toml"], "the admin token in two-lines must be one line"),
        (&[], &["--upstream", "https://cake.example/?api_key=canary"], "--upstream"),
        (
            &[("SMARTLINK_CLICK_ID_KEY_FILE", "absent")],
            &[],
            "cannot read the click id key file absent: No such file or directory (os error 2); copy it from another node",
        ),
        (&[], &["--config", "ids.toml"], "cannot read the click id key file absent: "),
        (
            &[("SMARTLINK_CLICK_ID_KEY_FILE", "two-lines")],
            &[],
            "the click id key file two-lines, line 1: this is no key, which has 64 hexadecimal digits; `openssl",
        ),
        (
            &[],
            &["--data-dir", "damaged"],
            "the click id key file damaged/click-id-key, line 2: this is no key",
        ),
    ] {
        let told = desk.run_with(variables, &[&["serve"], ON_FREE_PORTS, arguments].concat());
        told.fails_saying(&[said]);
        assert!(!told.stderr.contains("canary"), "{told:?}");
    }
}

#[test]
fn explain_says_whom_it_asked() {
    let desk = Desk::new();
    // Bound, so that nobody else can take the port, and not listening, so that it is refused at once.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let nobody = bound.local_addr().unwrap().as_socket().unwrap().to_string();
    let click = ["explain", "--id", "301", "--aff-id", "67890"];
    desk.run(&[&click[..], &["--admin", &nobody]].concat()).fails_saying(&[
        &format!("no node answers on {nobody} (Connection refused"),
        "is `smartlink serve` running",
    ]);
    desk.run(&[&click[..], &["--snapshot", "absent"]].concat())
        .fails_saying(&["there is no snapshot absent"]);
    desk.run(&[&click[..], &["--snapshot", desk.file("bad", "x")]].concat())
        .fails_saying(&["the snapshot bad is damaged"]);
}

#[test]
fn explain_of_a_snapshot() {
    let desk = Desk::new();
    desk.file("snapshot", snapshot(&network(1042)));
    let click = ["explain", "--snapshot", "snapshot", "--id", "301", "--aff-id", "67890"];
    let told = desk.run(&[&click[..], &["--ip", "198.51.100.7", "--s1", "a&b"]].concat());
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    for said in ["country GB", "→ offer 1042, weight 1", "https://shop.example.com/a?sub=a%26b"] {
        assert!(told.stdout.contains(said), "{said}: {told:?}");
    }
    let told = desk.run(&[&click[..], &["--json", "--draw", "0x10"]].concat());
    let answer: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&answer["offer_id"], &answer["draw"]), (&json!(1042), &json!("0x0000000000000010")));
    assert_eq!(answer["affiliate_id"], 67_890);
    // Of another affiliate's click, whose link it is.
    let other = ["explain", "--snapshot", "snapshot", "--id", "301", "--aff-id", "7"];
    let told = desk.run(&other);
    let said = "outcome   affiliate_mismatch: the link is affiliate 67890’s\n";
    assert!(told.stdout.contains(said), "{told:?}");
    let unknown = ["explain", "--snapshot", "snapshot", "--id", "9", "--aff-id", "7", "--json"];
    let answer: Value = serde_json::from_str(&desk.run(&unknown).stdout).unwrap();
    assert_eq!((&answer["outcome"], &answer["affiliate_id"]), (&json!("unknown_link"), &Value::Null));
    for (flag, value, said) in [
        ("--at", "tomorrow", "`at` is \"tomorrow\"; expected a moment in RFC 3339"),
        ("--ip", "here", "`ip` is \"here\"; expected an IP address"),
        ("--draw", "x", "`draw` is \"x\"; expected 64 bits"),
    ] {
        desk.run(&[&click[..], &[flag, value]].concat()).fails_saying(&[said]);
    }
}

#[test]
fn a_node_is_started_asked_and_ended() {
    let desk = Desk::new();
    let node = desk.serve_demo();
    let ask = |arguments: &[&str]| {
        desk.run(
            &[&["explain", "--admin", &node.admin, "--id", "301", "--aff-id", "67890"], arguments].concat(),
        )
    };
    let told = ask(&["--ip", "198.51.100.7", "--user-agent", PHONE]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    for said in ["country GB", "mobile ios safari", "→ offer 1045 by rule 1", "outcome   offer"] {
        assert!(told.stdout.contains(said), "{said}: {told:?}");
    }
    let told = ask(&["--ip", "192.0.2.1", "--user-agent", PHONE]);
    assert!(
        told.stdout.contains("✗ offer 1045 by rule 1, weight 100: country must be in GB; the click's is US")
    );
    ask(&["--draw", "x"]).fails_saying(&["`draw` is \"x\"", "HTTP 400"]);

    let (code, log) = node.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

/// The long flags of a command, as its help lists them.
fn flags_of(desk: &Desk, command: &str) -> Vec<String> {
    let help = desk.run(&[command, "--help"]).stdout;
    let (options, _) = help.split_once("Examples:").unwrap();
    let flags = options.split_whitespace().filter(|word| word.starts_with("--"));
    let flags: Vec<String> = flags.map(|flag| flag.trim_end_matches(',').to_owned()).collect();
    assert!(flags.contains(&"--help".to_owned()), "{help}");
    flags
}

/// A network of one link and one offer; another offer's id makes the link's entry an orphan.
fn network(attached: u32) -> Value {
    json!({
        "smart_links": [{"smart_link_id": 301, "affiliate_id": 67890, "smart_link_status": "active"}],
        "offers": [{
            "offer_id": 1042, "offer_status": "active", "offer_url": "https://shop.example.com/a?sub={s1}",
        }],
        "offer_geo_targets": [],
        "smart_link_offers": [{"smart_link_id": 301, "offer_id": attached}],
        "routing_rules": [],
    })
}

/// The bytes of a last good file.
fn snapshot(network: &Value) -> Vec<u8> {
    let network: Network = serde_json::from_value(network.clone()).unwrap();
    let mut items = Vec::new();
    network.canonical().write(&mut items).unwrap();
    let first_line = format!("smartlink-snapshot 2 {}\n", blake3::hash(&items).to_hex());
    [first_line.into_bytes(), items].concat()
}

const COMMANDS: &[&str] = &["serve", "check", "explain", "click-id", "completions", "man"];

const ON_FREE_PORTS: &[&str] = &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

const DEMO_DATABASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lookup/demo.mmdb");

const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                     Version/18.5 Mobile/15E148 Safari/604.1";
