//! User-Agents of today and what their devices are, from `devices.tsv`; and what holds for any text at all.

use proptest::prelude::*;
use smartlink::lookup::{DeviceCache, Hints, device};
use smartlink::types::{Browser, Device, DeviceKind, Os};

/// A line of `devices.tsv`.
struct Row {
    line: usize,
    class: &'static str,
    expected: Device,
    hints: Hints<'static>,
}

#[test]
fn every_user_agent_is_what_it_is() {
    let rows = rows();
    let mut cache = DeviceCache::new(11);
    let mut mismatches = Vec::new();
    for row in &rows {
        let told = device(&row.hints);
        if told != row.expected {
            mismatches.push(format!(
                "line {} ({})\n  expected {}\n  got      {}\n  {}",
                row.line,
                row.class,
                in_words(row.expected),
                in_words(told),
                row.hints.user_agent.unwrap_or_default(),
            ));
        }
        assert_eq!(cache.device(&row.hints), told, "line {}: the cache, at first sight", row.line);
        assert_eq!(cache.device(&row.hints), told, "line {}: the cache, again", row.line);
    }
    assert!(mismatches.is_empty(), "{} of {}:\n{}", mismatches.len(), rows.len(), mismatches.join("\n"));
}

/// A table that lost its rows would pass every loop over it.
#[test]
fn the_table_is_broad() {
    let rows = rows();
    assert!(rows.len() >= 300, "only {} rows", rows.len());
    for class in CLASSES {
        let count = rows.iter().filter(|row| row.class == *class).count();
        assert!(count >= 4, "class {class} has {count} rows");
    }
    for row in &rows {
        assert!(CLASSES.contains(&row.class), "line {}: no class {:?}", row.line, row.class);
    }
    let few = |what: &str, count: usize| assert!(count >= 4, "{what}: {count} rows");
    for &kind in DeviceKind::ALL {
        few(kind.as_str(), rows.iter().filter(|row| row.expected.kind == kind).count());
    }
    for &os in Os::ALL {
        few(os.as_str(), rows.iter().filter(|row| row.expected.os == os).count());
    }
    for &browser in Browser::ALL {
        few(browser.as_str(), rows.iter().filter(|row| row.expected.browser == browser).count());
    }
    few("bots", rows.iter().filter(|row| row.expected.bot).count());
}

#[test]
fn nothing_sent_tells_nothing() {
    assert_eq!(device(&Hints::default()), Device::UNKNOWN);
}

#[test]
fn what_follows_the_first_kilobyte_is_not_read() {
    let long = format!("{}{}", "x".repeat(1024), " Googlebot/2.1");
    assert!(!device(&agent(&long)).bot);
    // The cut falls inside a character.
    let wide = format!("{}{}", "é".repeat(600), " Googlebot/2.1");
    assert!(!device(&agent(&format!("x{wide}"))).bot);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(user_agent in ".{0,3000}", mobile in ".{0,8}", platform in ".{0,20}") {
        device(&Hints { user_agent: Some(&user_agent), ch_mobile: Some(&mobile), ch_platform: Some(&platform) });
    }

    /// Texts made of what browsers say reach further into the parser than noise does.
    #[test]
    fn no_shuffle_of_real_words_makes_it_panic(
        words in prop::collection::vec((0usize..10_000, 0usize..4, "[ ;()/\\[\\]\u{e9}]{0,2}"), 0..60),
    ) {
        let vocabulary: Vec<&str> =
            TABLE.lines().flat_map(|line| line.split([' ', '\t', ';', '(', ')', '/'])).collect();
        let mut text = String::new();
        for (pick, cut, mark) in words {
            let word = vocabulary[pick % vocabulary.len()];
            text.extend(word.chars().skip(cut / 2).take(if cut == 3 { 2 } else { usize::MAX }));
            text.push_str(&mark);
        }
        let told = device(&agent(&text));
        prop_assert_eq!(told, device(&agent(&text)));
        prop_assert_eq!(told, DeviceCache::with_entries(3, 4).device(&agent(&text)));
    }

    /// A hint corrects the kind and the system of people's devices, and nothing else.
    #[test]
    fn hints_leave_browsers_and_bots_alone(
        row in 0usize..10_000,
        mobile in prop::option::of("\\?[01]"),
        platform in prop::option::of("\"(Android|Chrome OS|iOS|Linux|macOS|Windows|Fuchsia)\""),
    ) {
        let rows = rows();
        let user_agent = rows[row % rows.len()].hints.user_agent;
        let bare = device(&Hints { user_agent, ..Hints::default() });
        let hinted =
            device(&Hints { user_agent, ch_mobile: mobile.as_deref(), ch_platform: platform.as_deref() });
        prop_assert_eq!((hinted.browser, hinted.bot), (bare.browser, bare.bot));
        if bare.bot || matches!(bare.kind, DeviceKind::Tv | DeviceKind::Console) {
            prop_assert_eq!(hinted, bare);
        }
    }
}

fn agent(user_agent: &str) -> Hints<'_> {
    Hints { user_agent: Some(user_agent), ..Hints::default() }
}

fn in_words(device: Device) -> String {
    let who = if device.bot { "bot" } else { "person" };
    format!("{} {} {} {who}", device.kind, device.os, device.browser)
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().enumerate().filter(|(_, text)| !text.starts_with('#'));
    lines.map(|(index, text)| row(index + 1, text)).collect()
}

fn row(line: usize, text: &'static str) -> Row {
    let columns: Vec<&str> = text.split('\t').collect();
    let [class, kind, os, browser, who, mobile, platform, user_agent] = columns[..] else {
        panic!("line {line} has {} columns", columns.len());
    };
    let unreadable = |what: &str| format!("line {line}: no {what} of that name");
    let hint = |text: &'static str| (text != "-").then_some(text);
    assert!(matches!(who, "bot" | "person"), "line {line}: neither bot nor person");
    Row {
        line,
        class,
        expected: Device {
            kind: DeviceKind::parse(kind).unwrap_or_else(|| panic!("{}", unreadable("kind"))),
            os: Os::parse(os).unwrap_or_else(|| panic!("{}", unreadable("os"))),
            browser: Browser::parse(browser).unwrap_or_else(|| panic!("{}", unreadable("browser"))),
            bot: who == "bot",
        },
        hints: Hints { user_agent: Some(user_agent), ch_mobile: hint(mobile), ch_platform: hint(platform) },
    }
}

const TABLE: &str = include_str!("devices.tsv");

const CLASSES: &[&str] = &[
    "desktop", "phone", "tablet", "tv", "console", "in-app", "crawler", "ai", "preview", "library",
    "headless", "hints", "unknown",
];
