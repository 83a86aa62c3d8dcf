//! Reports over click logs by the real binary: the figures in every form, what is damaged, what is being written, and that
//! the fill rate is the node's own.

mod command;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use smartlink::clicklog::{AddressDetail, ClickLog, ClickLogs, Record, StorageOptions};
use smartlink::types::{
    AffiliateId, Browser, Country, Device, DeviceKind, Draw, LinkId, OfferId, Os, Region, UnixMillis,
};

use command::{Desk, Told};
use support::http::Request;
use support::node::{Node, Setup};
use support::wait;

/// `clicks-20261122T195900.000Z-….ndjson`: ten clicks on two links, some of which nobody made.
const SAMPLE: [Made; 10] = [
    made(0, "offer", 301, Some(1042), Some("US"), DeviceKind::Mobile, "person"),
    made(10, "offer", 301, Some(1042), Some("US"), DeviceKind::Mobile, "person"),
    made(50, "offer", 301, Some(1043), Some("DE"), DeviceKind::Desktop, "person"),
    made(59, "no_match", 301, None, Some("FR"), DeviceKind::Desktop, "person"),
    made(60, "capped", 302, None, Some("US"), DeviceKind::Tablet, "person"),
    made(70, "offer", 302, Some(1042), None, DeviceKind::Mobile, "person"),
    made(80, "unknown_link", 9, None, Some("US"), DeviceKind::Mobile, "person"),
    made(90, "offer", 301, Some(1042), Some("US"), DeviceKind::Mobile, "bot"),
    made(3700, "offer", 301, Some(1043), Some("US"), DeviceKind::Mobile, "probe"),
    made(3800, "offer", 302, Some(1043), Some("US"), DeviceKind::Mobile, "person"),
];

/// 2026-11-22T19:59:00Z.
const BEGUN: i64 = 1_795_377_540_000;

#[test]
fn a_table() {
    let desk = sample();
    is_printed(
        &desk.run(&["log", "stats", "clicks", "--by", "link,hour", "--outcomes"]),
        "\
smart_link_id  clicks    share  offers  fill rate  probes  bots  unknown_link  no_match  capped
301                 4   50.0 %       3     75.0 %       1     1             0         1       0
302                 3   37.5 %       2     66.7 %       0     0             0         0       1
9                   1   12.5 %       0      0.0 %       0     0             1         0       0
all                 8  100.0 %       5     62.5 %       1     1             1         1       1

hour           clicks    share  offers  fill rate  probes  bots  unknown_link  no_match  capped
2026-11-22T19       4   50.0 %       3     75.0 %       0     0             0         1       0
2026-11-22T20       3   37.5 %       1     33.3 %       0     1             1         0       1
2026-11-22T21       1   12.5 %       1    100.0 %       1     0             0         0       0
all                 8  100.0 %       5     62.5 %       1     1             1         1       1
",
    );
    is_printed(
        &desk.run(&["log", "stats", "clicks", "--by", "country", "--top", "1"]),
        "\
country         clicks    share  offers  fill rate  probes  bots
US                   5   62.5 %       3     60.0 %       1     1
other (3 more)       3   37.5 %       2     66.7 %       0     0
all                  8  100.0 %       5     62.5 %       1     1
",
    );
}

#[test]
fn csv() {
    let desk = sample();
    is_printed(
        &desk.run(&["log", "stats", "clicks", "--by", "offer,day,device", "--csv"]),
        "\
by,name,lines,clicks,share,offers,fill_rate,probes,bots,unknown_link,inactive_link,affiliate_mismatch,bot,no_offers,no_match,capped,location_too_long
all,,10,8,1.000000,5,0.625000,1,1,1,0,0,0,0,1,1,0
offer,1042,4,3,0.375000,3,1.000000,0,1,0,0,0,0,0,0,0,0
offer,,3,3,0.375000,0,0.000000,0,0,1,0,0,0,0,1,1,0
offer,1043,3,2,0.250000,2,1.000000,1,0,0,0,0,0,0,0,0,0
day,2026-11-22T00:00:00Z,10,8,1.000000,5,0.625000,1,1,1,0,0,0,0,1,1,0
device,mobile,7,5,0.625000,4,0.800000,1,1,1,0,0,0,0,0,0,0
device,desktop,2,2,0.250000,1,0.500000,0,0,0,0,0,0,0,1,0,0
device,tablet,1,1,0.125000,0,0.000000,0,0,0,0,0,0,0,0,1,0
",
    );
}

#[test]
fn json() {
    let desk = sample();
    let told = desk.run(&["log", "stats", "clicks", "--by", "link,country", "--top", "2", "--json"]);
    is_printed(
        &told,
        r#"{"first_click":"2026-11-22T19:59:00Z","last_click":"2026-11-22T21:02:20Z","files":1,"lines":10,"left_out":0,"damage":{"lines":0,"files":0,"named":[]},"all":{"clicks":8,"share":1.0,"offers":5,"fallbacks":3,"fill_rate":0.625,"probes":1,"bots":1,"outcomes":{"offer":5,"unknown_link":1,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":1,"capped":1,"location_too_long":0}},
"by":{
"link":{"other":{"rows":1,"clicks":1,"share":0.125,"offers":0,"fallbacks":1,"fill_rate":0.0,"probes":0,"bots":0,"outcomes":{"offer":0,"unknown_link":1,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":0,"capped":0,"location_too_long":0}},"rows":[
{"smart_link_id":301,"clicks":4,"share":0.5,"offers":3,"fallbacks":1,"fill_rate":0.75,"probes":1,"bots":1,"outcomes":{"offer":3,"unknown_link":0,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":1,"capped":0,"location_too_long":0}},
{"smart_link_id":302,"clicks":3,"share":0.375,"offers":2,"fallbacks":1,"fill_rate":0.6666666666666666,"probes":0,"bots":0,"outcomes":{"offer":2,"unknown_link":0,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":0,"capped":1,"location_too_long":0}}
]},
"country":{"other":{"rows":2,"clicks":2,"share":0.25,"offers":1,"fallbacks":1,"fill_rate":0.5,"probes":0,"bots":0,"outcomes":{"offer":1,"unknown_link":0,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":1,"capped":0,"location_too_long":0}},"rows":[
{"country":"US","clicks":5,"share":0.625,"offers":3,"fallbacks":2,"fill_rate":0.6,"probes":1,"bots":1,"outcomes":{"offer":3,"unknown_link":1,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":0,"capped":1,"location_too_long":0}},
{"country":null,"clicks":1,"share":0.125,"offers":1,"fallbacks":0,"fill_rate":1.0,"probes":0,"bots":0,"outcomes":{"offer":1,"unknown_link":0,"inactive_link":0,"affiliate_mismatch":0,"bot":0,"no_offers":0,"no_match":0,"capped":0,"location_too_long":0}}
]}
}}
"#,
    );
    // Which it is, whatever the lines.
    assert!(serde_json::from_str::<Value>(&told.stdout).is_ok());
}

#[test]
fn filters() {
    let desk = sample();
    for (filter, clicks, offers, left_out) in [
        (&["--link", "301"][..], 4, 3, 4),
        (&["--link", "301,9"], 5, 3, 3),
        (&["--affiliate", "67890"], 8, 5, 0),
        (&["--affiliate", "67891"], 0, 0, 10),
        (&["--offer", "1042"], 3, 3, 6),
        (&["--country", "DE,FR"], 2, 1, 8),
        (&["--since", "2026-11-22T20:00:00Z"], 4, 2, 4),
        (&["--since", "2026-11-22T20:00"], 4, 2, 4),
        (&["--until", "2026-11-22T20:00:00Z"], 4, 3, 6),
        (&["--since", "2026-11-22T20:00:00Z", "--until", "2026-11-22T21:00:00Z"], 3, 1, 6),
        (&["--since", "2026-11-22", "--until", "2026-11-23", "--link", "302"], 3, 2, 7),
        (&["--since", "2026-11-23"], 0, 0, 10),
        (&["--until", "36500d"], 0, 0, 10),
        (&["--since", "36500d"], 8, 5, 0),
    ] {
        let told = desk.run(&[&["log", "stats", "clicks", "--json"], filter].concat());
        let report: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
        let seen = [&report["all"]["clicks"], &report["all"]["offers"], &report["left_out"]];
        assert_eq!(seen, [clicks, offers, left_out], "{filter:?}");
    }
    for (filter, said) in [
        (&["--since", "yesterday"][..], &["--since \"yesterday\" is no time", "2026-11-22"][..]),
        (&["--until", ""], &["--until \"\" is no time"]),
        (&["--until", "99999999999d"], &["--until"]),
    ] {
        desk.run(&[&["log", "stats", "clicks"], filter].concat()).fails_saying(said);
    }
    let told = desk.run(&["log", "stats", "clicks", "--country", "Germany"]);
    assert!(told.code == Some(2) && told.stderr.contains("two capital letters"), "{told:?}");
}

#[test]
fn what_is_damaged_is_counted_and_named_in_every_form_and_the_rest_is_read() {
    let desk = Desk::new();
    let whole = sample_lines();
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let torn = lines[0][..200].to_owned();
    lines.insert(3, torn.clone());
    lines.insert(5, String::new());
    lines.insert(6, "127.0.0.1 - - [22/Nov/2026] \"GET / HTTP/1.1\" 200".to_owned());
    lines.insert(7, lines[0].replace("\"offer\"", "\"offered\""));
    desk.file("damaged.ndjson", lines.join("\n"));
    let byte = lines[..3].join("\n").len() + 1;
    let wanted = [
        (4, "this line is cut off, or longer than any of a click log: after byte 200"),
        (6, "this line is empty"),
        (7, "this is no line of a click log: expected one JSON object, and byte 6 of it belongs to none"),
        (8, "outcome \"offered\" is none that is known here"),
    ];
    let run = |form: &[&str]| {
        let told = desk.run(&[&["log", "stats", "damaged.ndjson"], form].concat());
        assert_eq!(told.code, Some(1), "{told:?}");
        assert_eq!(told.stderr.lines().count(), 4, "{told:?}");
        for ((line, why), said) in wanted.iter().zip(told.stderr.lines()) {
            assert!(said.starts_with(&format!("smartlink: line {line} (byte ")), "{said}");
            assert!(said.contains(&format!(" of damaged.ndjson: {why}")), "{said}");
        }
        assert!(told.stderr.contains(&format!("line 4 (byte {byte}) of")), "{told:?}");
        told.stdout
    };
    assert_eq!(run(&[]), sample().run(&["log", "stats", "clicks"]).stdout);
    let report: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!((&report["all"]["clicks"], &report["lines"]), (&8.into(), &14.into()));
    assert_eq!((&report["damage"]["lines"], &report["damage"]["files"]), (&4.into(), &0.into()));
    let first = &report["damage"]["named"][0];
    assert_eq!(
        (&first["file"], &first["line"], &first["byte"]),
        (&"damaged.ndjson".into(), &4.into(), &byte.into())
    );
    let csv = run(&["--csv"]);
    assert!(csv.contains("\ndamaged,,4,,,,,,,,,,,,,,\n"), "{csv}");
    assert!(csv.contains("\ndamaged,line 6 (byte "), "{csv}");
    run(&["--html", "report.html"]);
    let page = fs::read_to_string(desk.path("report.html")).unwrap();
    assert!(page.contains("Not counted: 4 lines, which could not be read:"));
    assert!(page.contains("of damaged.ndjson: this line is empty"));
}

#[test]
fn of_much_damage_a_little_is_named() {
    let desk = Desk::new();
    desk.file("other.txt", "nothing of ours\n".repeat(100_000));
    let told = desk.run(&["log", "stats", "other.txt", "--json"]);
    assert_eq!(told.code, Some(1));
    let said: Vec<&str> = told.stderr.lines().collect();
    assert_eq!(said.len(), 11, "{said:?}");
    assert_eq!(said[10], "smartlink: … and 99990 more; 100000 lines and 0 files in all");
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report["damage"]["named"].as_array().unwrap().len(), 10);
    assert_eq!((&report["damage"]["lines"], &report["all"]["fill_rate"]), (&100_000.into(), &Value::Null));
}

#[test]
fn other_ends_of_lines_and_no_end_of_the_last_one() {
    let desk = Desk::new();
    let whole = sample_lines();
    let wanted = sample().run(&["log", "stats", "clicks", "--by", "link"]).stdout;
    desk.file("crlf.ndjson", whole.replace('\n', "\r\n"));
    desk.file("no-end.ndjson", whole.trim_end());
    for name in ["crlf.ndjson", "no-end.ndjson"] {
        is_printed(&desk.run(&["log", "stats", name, "--by", "link"]), &wanted);
    }
    let told = desk.run_reading("crlf.ndjson", &["log", "stats", "-", "--by", "link"]);
    is_printed(&told, &wanted);
}

#[test]
fn what_is_compressed_is_named_with_what_to_do() {
    let desk = sample();
    desk.file("clicks/clicks-20261121T000000.000Z-5f0c-0000000001.ndjson.gz", b"\x1f\x8b\x08\0\0");
    desk.file("renamed.ndjson", b"\x28\xb5\x2f\xfd rest");
    let told = desk.run(&["log", "stats", "clicks", "renamed.ndjson", "--json"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let said: Vec<&str> = told.stderr.lines().collect();
    assert!(said[0].contains("renamed.ndjson: is compressed (zstd)"), "{said:?}");
    assert!(said[1].contains(".ndjson.gz: is compressed (gzip)") && said[1].contains("zcat"), "{said:?}");
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&report["damage"]["files"], &report["all"]["clicks"]), (&2.into(), &8.into()));
    assert_eq!(report["damage"]["named"][0]["line"], Value::Null);
}

#[test]
fn of_compressed_files_alone_there_is_no_report() {
    let desk = sample();
    let segment = fs::read_dir(desk.path("clicks")).unwrap().next().unwrap().unwrap().path();
    desk.file("one.ndjson.gz", b"\x1f\x8b\x08\0\0");
    desk.file("two.zst", b"\x28\xb5\x2f\xfd rest");
    fs::create_dir(desk.path("backup")).unwrap();
    desk.file("backup/clicks-20261121T000000.000Z-5f0c-0000000001.ndjson.gz", b"\x1f\x8b\x08\0\0");
    for (paths, said) in [
        (&["one.ndjson.gz"][..], "one.ndjson.gz: is compressed (gzip), which is not read here; zcat FILE | "),
        (&["two.zst", "--json"], "two.zst: is compressed (zstd), which is not read here; zstdcat FILE | "),
        (&["backup", "--csv"], ".ndjson.gz: is compressed (gzip)"),
        (&["one.ndjson.gz", "two.zst", "--html", "report.html"], "two.zst: is compressed (zstd)"),
    ] {
        let told = desk.run(&[&["log", "stats"], paths].concat());
        assert_eq!((told.code, &*told.stdout), (Some(2), ""), "{told:?}");
        assert!(told.stderr.contains(said) && told.stderr.contains("there is no report"), "{told:?}");
    }
    assert!(!desk.path("report.html").exists());
    let told = desk.run_reading("one.ndjson.gz", &["log", "stats", "-"]);
    assert!(told.code == Some(2) && told.stderr.contains("compressed (gzip)"), "{told:?}");
    // The lines themselves are not printed as what they are not.
    let told = desk.run(&["log", "cat", "one.ndjson.gz"]);
    assert_eq!((told.code, &*told.stdout), (Some(2), ""), "{told:?}");
    assert!(told.stderr.contains("zcat FILE | smartlink log cat - reads it"), "{told:?}");
    let told = desk.run(&["log", "cat", segment.to_str().unwrap(), "backup"]);
    assert_eq!((told.code, told.stdout.lines().count()), (Some(1), SAMPLE.len()), "{told:?}");
    assert!(told.stderr.contains("1 compressed files were left out"), "{told:?}");
}

#[test]
fn a_data_directory_is_as_good_as_the_log_in_it() {
    let desk = sample();
    let wanted = desk.run(&["log", "stats", "clicks"]).stdout;
    is_printed(&desk.run(&["log", "stats", "."]), &wanted);
    let told = desk.run(&["log", "cat", "."]);
    assert_eq!((told.code, told.stdout), (Some(0), sample_lines()));
}

#[test]
fn a_missing_path_is_a_mistake_and_no_report_of_the_others() {
    let desk = sample();
    let told = desk.run(&["log", "stats", "clicks", "absent.ndjson", "--html", "report.html"]);
    assert_eq!((told.code, &*told.stdout), (Some(2), ""), "{told:?}");
    assert!(told.stderr.contains("absent.ndjson"), "{told:?}");
    assert!(!desk.path("report.html").exists());
}

#[test]
fn an_empty_directory_and_an_empty_file() {
    let desk = Desk::new();
    fs::create_dir(desk.path("clicks")).unwrap();
    desk.file("empty.ndjson", "");
    for form in
        [&["clicks"][..], &["clicks", "--json"], &["clicks", "--csv"], &["clicks", "--html", "a.html"]]
    {
        let told = desk.run(&[&["log", "stats"], form].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        assert_eq!(told.stderr, "smartlink: there is no segment of a click log in clicks\n");
    }
    let page = fs::read_to_string(desk.path("a.html")).unwrap();
    assert!(page.contains("<h1>No click was counted</h1>"));
    assert_eq!(well_formed(&page), Ok(()));
    let told = desk.run(&["log", "stats", "empty.ndjson"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert!(told.stdout.contains("all           0"), "{told:?}");
    desk.run(&["log", "stats", "absent"]).fails_saying(&["absent", "is there a node"]);
}

#[test]
fn a_segment_of_which_the_last_line_was_not_finished() {
    let desk = Desk::new();
    let whole = sample_lines();
    let wanted = sample().run(&["log", "stats", "clicks"]).stdout;
    let half = &whole.lines().next().unwrap()[..100];
    // Live: it is being written. The zeros behind it are no lines.
    desk.file("5f0c-0000000001.live", [whole.as_bytes(), half.as_bytes(), &[0; 5_000_000]].concat());
    is_printed(&desk.run(&["log", "stats", "5f0c-0000000001.live"]), &wanted);
    // Sealed or copied: it is damage.
    desk.file("copy.ndjson", [whole.as_bytes(), half.as_bytes()].concat());
    let told = desk.run(&["log", "stats", "copy.ndjson"]);
    assert_eq!((told.code, told.stdout), (Some(1), wanted));
    assert!(told.stderr.contains("line 11 (byte ") && told.stderr.contains("cut off"), "{}", told.stderr);
    // And zeros, too, where nobody writes.
    desk.file("zeros.ndjson", [whole.as_bytes(), &[0; 5_000_000]].concat());
    let told = desk.run(&["log", "stats", "zeros.ndjson"]);
    assert!(told.code == Some(1) && told.stderr.contains("zero bytes: a live segment"), "{told:?}");
    assert_eq!(told.stderr.lines().count(), 1);
}

/// Whatever moment it is read at: what was there before is counted, nothing twice, and nothing is damaged, though segments are
/// sealed and get other names meanwhile.
#[test]
fn a_log_is_read_while_it_is_written_and_sealed() {
    const REPORTS: u64 = 10;
    const CLICKS_EACH: u64 = 2_500;
    let desk = Desk::new();
    let (logs, mut of_workers) = start(&desk.path("clicks"), 1, 1024 * 1024);
    let mut log = of_workers.pop().unwrap();
    let (written, reports) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for click in 0..REPORTS * CLICKS_EACH {
                // As each report begins, there is more than a segment to write.
                wait::until("a report", || {
                    (click / CLICKS_EACH < reports.load(Ordering::Acquire)).then_some(())
                });
                wait::until("room", || log.has_room().then_some(()));
                append(&mut log, &Made { second: click as i64, ..SAMPLE[0] });
                written.store(click + 1, Ordering::Release);
            }
            drop(log);
        });
        for _ in 0..REPORTS {
            let before = written.load(Ordering::Acquire);
            reports.fetch_add(1, Ordering::Release);
            let told = desk.run(&["log", "stats", "clicks", "--json"]);
            let after = written.load(Ordering::Acquire);
            assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
            let report: Value = serde_json::from_str(&told.stdout).unwrap();
            let clicks = report["all"]["clicks"].as_u64().unwrap();
            // The counter is a click behind.
            assert!((before..=after + 1).contains(&clicks), "{before} {clicks} {after}");
        }
    });
    assert!(logs.finish(wait::DEADLINE));
    let told = desk.run(&["log", "stats", "clicks", "--json"]);
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report["all"]["clicks"], REPORTS * CLICKS_EACH);
    assert!(report["files"].as_u64().unwrap() > REPORTS, "{report}");
}

#[test]
fn the_page_needs_nothing_but_itself_and_says_what_the_table_says() {
    let desk = sample();
    let told = desk.run(&["log", "stats", "clicks", "--html", "report.html", "--since", "2026-11-22"]);
    is_printed(&told, "62.5 % of 8 clicks reached an offer\n");
    let page = fs::read_to_string(desk.path("report.html")).unwrap();
    assert_eq!(well_formed(&page), Ok(()));
    assert!(page.contains("<h1>62.5 % of 8 clicks reached an offer</h1>"));
    assert!(page.contains("Only clicks: since 2026-11-22T00:00:00Z"));
    for heading in ["Clicks by minute", "What became of clicks", "Links", "Offers", "Countries", "Devices"] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert!(page.contains(r#"<th scope="row">DE <span class="explained">Germany</span></th><td>1</td>"#));
    // Nothing is fetched: by the policy of the page, and because nothing asks for it.
    assert!(page.contains("default-src 'none'; script-src 'nonce-"));
    let (markup, scripts) = without_scripts(&page);
    for reference in [" src=", " href=", "url(", "@import", "<link", "<img", "<iframe", "http://", "https://"]
    {
        assert!(!markup.contains(reference), "{reference}");
    }
    for call in ["fetch(", "XMLHttpRequest", "WebSocket", "import(", "sendBeacon", "EventSource"] {
        assert!(!scripts.iter().any(|script| script.contains(call)), "{call}");
    }
    // What is drawn: every minute, those without a click too.
    let series = scripts.iter().find(|script| script.starts_with('{')).unwrap();
    let series: Value = serde_json::from_str(series).unwrap();
    let sum = |name: &str| {
        series[name].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("offers"), sum("fallbacks"), &series["step"]), (5, 3, &60.into()));
    assert_eq!(series["seconds"].as_array().unwrap().len(), 64);
    assert_eq!((&series["seconds"][0], &series["offers"][0]), (&(BEGUN / 1000).into(), &3.into()));
}

/// By a real browser, where there is one: both charts, and not a word of complaint, of the policy for example.
#[test]
fn a_browser_draws_the_charts() {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_there) else {
        return println!("skipped: no Chromium on this machine");
    };
    let desk = sample();
    desk.run(&["log", "stats", "clicks", "--html", "report.html"]);
    let page = format!("file://{}", desk.path("report.html").display());
    let profile = format!("--user-data-dir={}", desk.path("profile").display());
    let options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"];
    let said = Command::new(browser).args(options).args([&profile, &page]).output().unwrap();
    let (drawn, complaints) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(drawn.matches("<canvas").count(), 2, "{complaints}\n{drawn}");
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
}

/// What a visitor can put into a line stands on no page but in what is told of damage, and there it is text.
#[test]
fn nothing_in_a_line_breaks_out_of_a_page() {
    const BREAK: &str =
        "</script></style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'`${1}<!--";
    let desk = sample();
    let whole = sample_lines();
    let line = whole.lines().next().unwrap();
    let mut fields: Value = serde_json::from_str(line).unwrap();
    for field in ["user_agent", "referrer", "s1", "s5", "ip", "region"] {
        fields[field] = BREAK.into();
    }
    let mut lines = vec![fields.to_string()];
    for field in ["outcome", "country", "device", "smart_link_id", "time", "bot"] {
        let mut damaged = fields.clone();
        damaged[field] = BREAK.into();
        lines.push(damaged.to_string());
    }
    // Without what JSON escapes, it is quoted in the report.
    for field in ["outcome", "time"] {
        let mut damaged = fields.clone();
        damaged[field] = BREAK.replace('"', "").into();
        lines.push(damaged.to_string());
    }
    fields["made up"] = BREAK.into();
    lines.push(fields.to_string());
    let hostile = "clicks/clicks-<script>alert(3)<-script>.ndjson";
    desk.file(hostile, lines.join("\n"));
    let told = desk.run(&["log", "stats", "clicks", "--html", "report.html"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let page = fs::read_to_string(desk.path("report.html")).unwrap();
    assert!(page.contains("Not counted: 8 lines"), "{told:?}");
    assert_eq!(well_formed(&page), Ok(()));
    let (markup, scripts) = without_scripts(&page);
    for name in ["alert", "onerror", "${1}"] {
        assert!(!scripts.iter().any(|script| script.contains(name)), "{name}");
    }
    assert!(markup.contains("&#60;img src=x") || markup.contains("&lt;img src=x"), "it is told");
    assert!(!markup.contains("<img") && !markup.contains("<script>") && !markup.contains("<!--"));
    // The data, the library, and what draws.
    assert_eq!(scripts.len(), 3);
}

/// Clicks of every kind on a real node: its counters and its log come to the same.
#[test]
fn the_fill_rate_is_the_one_of_the_metrics() {
    let node = Setup::demo().setting("edge.bots = \"route\"").start_ready();
    let offer = node.create_offer("https://narrow.example.com/");
    let narrow = node.create_link(json!({"affiliate_id": 7, "fallback_url": "https://www.example.com/"}));
    let rule = json!({"smart_link_id": narrow, "offer_id": offer, "conditions": {"os": {"in": ["ios"]}}});
    node.post("routing_rule.json", rule);
    let empty = node.create_link(json!({"affiliate_id": 7}));
    let capped = node.create_link(json!({"affiliate_id": 7, "fallback_url": "https://www.example.com/"}));
    let few = node.create_offer("https://few.example.com/");
    node.attach(capped, few);
    let cap = json!({"offer_id": few, "cap_type": "click", "cap_interval": "daily", "cap_amount": 2});
    node.post("offer_cap.json", cap);
    node.refresh();
    let target = |link: i64| format!("/sl?id={link}&aff_id=7");
    for (target, clicks) in [
        ("/sl?id=301&aff_id=67890".to_owned(), 13),
        (target(narrow), 3),
        (target(empty), 2),
        (target(capped), 5),
        (target(999), 1),
        (target(301), 1),
    ] {
        for _ in 0..clicks {
            node.click(&target);
            node.ask(&Request::click(&target).method("HEAD"));
        }
        node.ask(
            &Request::click(&target).with("User-Agent", "Googlebot/2.1 (+http://www.google.com/bot.html)"),
        );
    }
    let report = stats(&node, &["--by", "outcome,link"]);
    let metrics = node.metrics();
    let outcomes = [
        "offer",
        "unknown_link",
        "inactive_link",
        "affiliate_mismatch",
        "no_offers",
        "no_match",
        "capped",
        "location_too_long",
    ];
    let clicks: u64 = outcomes.iter().map(|outcome| metrics.clicks(outcome)).sum();
    assert_eq!((clicks, metrics.clicks("probe"), metrics.clicks("bot")), (25, 25, 6), "{report}");
    for outcome in outcomes {
        assert_eq!(report["all"]["outcomes"][outcome], metrics.clicks(outcome), "{outcome}");
    }
    for outcome in ["offer", "unknown_link", "affiliate_mismatch", "no_offers", "no_match", "capped"] {
        assert!(metrics.clicks(outcome) > 0, "{outcome}");
    }
    assert_eq!((&report["all"]["probes"], &report["all"]["bots"]), (&25.into(), &6.into()));
    let rate = metrics.clicks("offer") as f64 / clicks as f64;
    assert_eq!(report["all"]["fill_rate"], rate);
    // And of each link.
    let links = report["by"]["link"]["rows"].as_array().unwrap();
    let of_metrics = |link: &Value, outcome: &str| {
        metrics
            .value(&format!("smartlink_link_clicks_total{{smart_link_id=\"{link}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!(links.len(), 5);
    for row in links.iter().filter(|row| row["smart_link_id"] != 999) {
        let link = &row["smart_link_id"];
        for outcome in outcomes {
            assert_eq!(row["outcomes"][outcome], of_metrics(link, outcome), "{link} {outcome}");
        }
        assert_eq!(row["probes"], of_metrics(link, "probe"), "{link}");
        assert_eq!(row["bots"], of_metrics(link, "bot"), "{link}");
    }
}

/// Not a test of anything but speed and memory; `SMARTLINK_REPORT_BYTES` are written, a gigabyte if nothing is said:
/// `cargo test --release --test report -- --ignored --nocapture`.
#[test]
#[ignore = "writes a gigabyte"]
fn a_gigabyte() {
    let bytes = std::env::var("SMARTLINK_REPORT_BYTES").map_or(1_000_000_000, |bytes| bytes.parse().unwrap());
    let desk = Desk::new();
    let (logs, mut of_workers) = start(&desk.path("clicks"), 2, 32 * 1024 * 1024);
    let (mut clicks, mut written) = (0_u64, 0);
    while written < bytes {
        let log = &mut of_workers[clicks as usize % 2];
        wait::until("room", || log.has_room().then_some(()));
        // Spread over links, offers and countries as a network's are, and over a day.
        let scattered = clicks.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let outcome = if scattered.is_multiple_of(9) { "no_match" } else { "offer" };
        let country = Country::all().nth((scattered % 250) as usize).map(Country::as_str);
        let offer = (outcome == "offer").then_some(1_000 + (scattered % 5_000) as u32);
        let (second, link) = ((clicks / 40) as i64, 1 + (scattered % 100_000) as u32);
        append(log, &Made { second, outcome, link, offer, country, ..SAMPLE[0] });
        clicks += 1;
        written += 640;
    }
    drop(of_workers);
    assert!(logs.finish(Duration::from_secs(120)));
    let path = desk.path("clicks").to_str().unwrap().to_owned();
    for arguments in [&["--by", "outcome"][..], &["--by", "link"], &["--html", "report.html"]] {
        for _ in 0..3 {
            let told = desk.run(&[&["log", "stats", &path], arguments].concat());
            assert_eq!(told.code, Some(0), "{told:?}");
            let rate = clicks as f64 / told.took.as_secs_f64();
            println!("{arguments:?}: {clicks} lines in {:?}, {rate:.0} a second", told.took);
        }
    }
}

/// The report of a node's own log, as JSON.
fn stats(node: &Node, arguments: &[&str]) -> Value {
    let said = node.command(&[&["log", "stats", "--json"], arguments].concat());
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

#[track_caller]
fn is_printed(told: &Told, wanted: &str) {
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    assert_eq!(told.stdout, wanted, "\n{}", told.stdout);
}

/// A desk with a directory `clicks`, in which there is [`SAMPLE`].
fn sample() -> Desk {
    let desk = Desk::new();
    let (logs, mut of_workers) = start(&desk.path("clicks"), 1, 1024 * 1024);
    for click in SAMPLE {
        append(&mut of_workers[0], &click);
    }
    drop(of_workers);
    assert!(logs.finish(wait::DEADLINE));
    desk
}

/// The lines of [`SAMPLE`].
fn sample_lines() -> String {
    let desk = sample();
    let mut files = fs::read_dir(desk.path("clicks")).unwrap();
    fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap()
}

fn start(directory: &Path, workers: usize, segment_bytes: u64) -> (ClickLogs, Vec<ClickLog>) {
    let options = StorageOptions {
        directory: directory.to_owned(),
        segment_bytes: segment_bytes.try_into().unwrap(),
        seal_after: Duration::from_secs(3600),
        sync_every: Duration::from_millis(100),
        keep_bytes: u64::MAX,
        keep_for: Duration::from_secs(3600),
        addresses: AddressDetail::Full,
    };
    ClickLogs::start(options, &[7; 16], "5f0c", workers).unwrap()
}

/// What is told of a click in these tests; the rest is the same for all.
struct Made {
    /// After [`BEGUN`].
    second: i64,
    outcome: &'static str,
    link: u32,
    offer: Option<u32>,
    country: Option<&'static str>,
    kind: DeviceKind,
    by: &'static str,
}

const fn made(
    second: i64,
    outcome: &'static str,
    link: u32,
    offer: Option<u32>,
    country: Option<&'static str>,
    kind: DeviceKind,
    by: &'static str,
) -> Made {
    Made { second, outcome, link, offer, country, kind, by }
}

fn append(log: &mut ClickLog, click: &Made) {
    let &Made { second, outcome, link, offer, country, kind, by } = click;
    let record = Record {
        click_id: "EaID6A2J7Ng_TFr9AAAAAAAAAAEtAAEJMgAABBJ50IoLDUPWiw",
        at: UnixMillis(BEGUN + second * 1000),
        outcome,
        link: LinkId::new(link).unwrap(),
        affiliate: AffiliateId::new(67890).unwrap(),
        offer: offer.and_then(OfferId::new),
        rule: None,
        priority: offer.map(|_| 2),
        draw: Draw(0x3c4b_df96_5ed2_46a5),
        snapshot: "fb53205c77869e15",
        address: [203, 0, 113, 7].into(),
        country: country.and_then(Country::parse),
        region: Region::parse("US-CA"),
        device: Device { kind, os: Os::Ios, browser: Browser::Safari, bot: by == "bot" },
        user_agent: Some(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
             Version/18.5 Mobile/15E148 Safari/604.1",
        ),
        referrer: Some("https://news.example.org/articles/2026/11/22/a-title"),
        subs: [Some("newsletter"), None, None, None, None],
        probe: by == "probe",
    };
    log.append(&record).unwrap();
}

/// Whether every element is closed by its own end, and every attribute quoted. `Err`: where not.
fn well_formed(page: &str) -> Result<(), String> {
    const VOID: [&str; 2] = ["meta", "br"];
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    let mut open: Vec<&str> = Vec::new();
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        if text.contains('>') {
            return Err(format!("a bracket in {text:?}"));
        }
        let (tag, behind) = rest[at + 1..].split_once('>').ok_or("a tag without an end")?;
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> in {open:?}"));
            }
            continue;
        }
        let name = tag.split(char::is_whitespace).next().unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) || name.is_empty() {
            return Err(format!("<{tag}>"));
        }
        if tag.matches('"').count() % 2 == 1 {
            return Err(format!("quotes of <{tag}>"));
        }
        if VOID.contains(&name) {
            continue;
        }
        open.push(name);
        // What is in these is no markup, up to their end.
        if name == "script" || name == "style" {
            rest = &rest[rest.find(&format!("</{name}")).ok_or("a script without an end")?..];
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} are open")) }
}

/// The page without what is in its scripts and styles, and the scripts.
fn without_scripts(page: &str) -> (String, Vec<&str>) {
    let (mut markup, mut scripts, mut rest) = (String::new(), Vec::new(), page);
    while let Some(at) = rest.find("<script") {
        let begin = at + rest[at..].find('>').unwrap() + 1;
        let end = begin + rest[begin..].find("</script").unwrap();
        markup.push_str(&rest[..begin]);
        scripts.push(rest[begin..end].trim());
        rest = &rest[end..];
    }
    (markup + rest, scripts)
}
