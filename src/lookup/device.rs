//! User-Agent and client hints → device: its kind, its system, its browser, and whether a machine asks.
//!
//! woothee reads the system and the browser; our own tokens (`signs`) add what it does not know: tablets, televisions,
//! consoles, in-app browsers, and the crawlers, preview agents and libraries of today. Client hints, where sent,
//! correct a frozen User-Agent.
//!
//! Promises: no panic on any input; the work is bounded, because only the first [`AGENT_BYTES_MAX`] bytes are read
//! and every step is linear in them; the same input always gives the same device.
//!
//! Deliberately not done:
//! - An iPad that asks for desktop sites says `Macintosh`, exactly as a Mac does. It stays a desktop, unless a name
//!   that exists on iOS alone (`CriOS`, `FBIOS`, `Mobile/15E148`) gives it away.
//! - Android boxes for televisions that say nothing of it count as tablets, as every Android without `Mobile`.
//! - No address is looked up: whoever claims to be Googlebot is a bot, whoever claims to be a person is one.

use woothee::parser::Parser;

use crate::types::{Browser, Device, DeviceKind, Os};

mod cache;
mod signs;

pub use cache::DeviceCache;
use signs::Signs;

/// The headers that tell the device, as they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints<'a> {
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// `Sec-CH-UA-Mobile`: `?1` or `?0`.
    pub ch_mobile: Option<&'a str>,
    /// `Sec-CH-UA-Platform`: a quoted string, `"Android"`.
    pub ch_platform: Option<&'a str>,
}

/// The device that the headers tell.
pub fn device(hints: &Hints<'_>) -> Device {
    let agent = bounded(hints.user_agent.unwrap_or_default());
    let signs = Signs::of(agent);
    if signs.any(Signs::LIBRARY) {
        return LIBRARY;
    }
    let told = Told::of(agent);
    let os = os(signs, &told);
    let kind = kind(os, signs, &told);
    let browser = browser(os, signs, &told);
    let bot = told.machine || signs.machine();
    corrected(Device { kind, os, browser, bot }, hints)
}

/// What woothee makes of a User-Agent, in our terms. `None` is "it did not say".
struct Told {
    os: Option<Os>,
    browser: Option<Browser>,
    /// A hand-held thing; woothee does not tell tablets from phones.
    phone: bool,
    pc: bool,
    console: bool,
    machine: bool,
}

impl Told {
    fn of(agent: &str) -> Told {
        let parsed = Parser::new().parse(agent).unwrap_or_default();
        Told {
            os: told_os(parsed.os),
            browser: told_browser(parsed.name),
            phone: matches!(parsed.category, "smartphone" | "mobilephone"),
            pc: parsed.category == "pc",
            // The appliances that woothee knows and our tokens do not spell are game consoles of the 2000s.
            console: parsed.category == "appliance",
            // "misc" are feed readers and HTTP libraries.
            machine: matches!(parsed.category, "crawler" | "misc"),
        }
    }
}

fn told_os(name: &str) -> Option<Os> {
    match name {
        "" | woothee::woothee::VALUE_UNKNOWN => None,
        "Mac OSX" | "Mac OS Classic" => Some(Os::MacOs),
        "iPhone" | "iPad" | "iPod" | "iOS" => Some(Os::Ios),
        "Android" => Some(Os::Android),
        "Linux" => Some(Os::Linux),
        "ChromeOS" => Some(Os::ChromeOs),
        // An Xbox runs Windows and says so.
        _ if name.starts_with("Windows") || name.starts_with("Xbox") => Some(Os::Windows),
        _ => Some(Os::Other),
    }
}

fn told_browser(name: &str) -> Option<Browser> {
    match name {
        "Chrome" | "Vivaldi" => Some(Browser::Chrome),
        "Safari" => Some(Browser::Safari),
        "Firefox" => Some(Browser::Firefox),
        "Edge" => Some(Browser::Edge),
        "Opera" => Some(Browser::Opera),
        "SamsungBrowser" => Some(Browser::Samsung),
        "Internet Explorer" | "Sleipnir" => Some(Browser::Other),
        // Left to our tokens: Yandex says Chrome on one system and Safari on another, and woothee's web view is any
        // Chrome whose text has the letters `wv` somewhere, a model's name included.
        _ => None,
    }
}

/// woothee names the system; where it stops early (at a crawler's name) or does not know, our tokens do.
fn os(signs: Signs, told: &Told) -> Os {
    if signs.any(Signs::APPLE_TV) {
        // tvOS says `like Mac OS X`, but runs what neither a Mac nor an iPhone runs.
        return Os::Other;
    }
    match told.os.unwrap_or_else(|| signs.os()) {
        // Macs never say `Mobile` nor carry an iOS app: this is an iPad that asks for desktop sites.
        Os::MacOs if signs.any(Signs::IOS.with(Signs::PHONE)) => Os::Ios,
        os => os,
    }
}

fn kind(os: Os, signs: Signs, told: &Told) -> DeviceKind {
    if signs.any(Signs::CONSOLE) {
        return DeviceKind::Console;
    }
    if signs.any(Signs::TV) {
        return DeviceKind::Tv;
    }
    if told.console {
        return DeviceKind::Console;
    }
    match os {
        Os::Windows if told.phone => DeviceKind::Mobile,
        Os::Windows | Os::MacOs | Os::ChromeOs => DeviceKind::Desktop,
        Os::Ios if signs.any(Signs::TABLET.with(Signs::MAC)) => DeviceKind::Tablet,
        Os::Ios => DeviceKind::Mobile,
        _ if signs.any(Signs::TABLET) => DeviceKind::Tablet,
        _ if signs.any(Signs::PHONE) => DeviceKind::Mobile,
        Os::Android => DeviceKind::Tablet,
        Os::Linux => DeviceKind::Desktop,
        Os::Other if told.phone => DeviceKind::Mobile,
        Os::Other if told.pc => DeviceKind::Desktop,
        Os::Other => DeviceKind::Other,
    }
}

fn browser(os: Os, signs: Signs, told: &Told) -> Browser {
    // An app's own requests carry its name too; only its browser has an engine.
    if signs.all(Signs::APP.with(Signs::WEBKIT)) {
        return Browser::Webview;
    }
    // A browser with a name of its own is that browser, even when it is built on a web view, as Opera Mini is.
    if let Some(named) = signs.browser() {
        return named;
    }
    if framed(os, signs) {
        return Browser::Webview;
    }
    match told.browser {
        None if signs.any(Signs::CHROME) => Browser::Chrome,
        // Safari exists on Apple's systems alone; elsewhere the word is a courtesy of some other WebKit.
        None | Some(Browser::Safari) if signs.any(Signs::SAFARI) && matches!(os, Os::Ios | Os::MacOs) => {
            Browser::Safari
        }
        None | Some(Browser::Safari) => Browser::Other,
        Some(browser) => browser,
    }
}

/// A page inside an app that does not give its name.
fn framed(os: Os, signs: Signs) -> bool {
    if signs.any(Signs::ON_WEB_VIEW) {
        return false;
    }
    match os {
        // Before Android 5 a web view has no `wv`, but calls itself version 4.0 as the system's old browser did.
        Os::Android => signs.any(Signs::WV) || signs.all(Signs::VERSION_4.with(Signs::CHROME)),
        Os::Ios | Os::MacOs => signs.any(Signs::WEBKIT) && !signs.any(Signs::SAFARI.with(Signs::CHROME)),
        _ => false,
    }
}

/// Client hints correct what a frozen User-Agent says. A television, a console and a bot stay what they are: they
/// say so on purpose.
fn corrected(device: Device, hints: &Hints<'_>) -> Device {
    if device.bot || matches!(device.kind, DeviceKind::Tv | DeviceKind::Console) {
        return device;
    }
    let os = hints.ch_platform.and_then(platform).unwrap_or(device.os);
    let handheld = matches!(os, Os::Android | Os::Ios);
    let kind = match hints.ch_mobile.and_then(mobile) {
        Some(true) => DeviceKind::Mobile,
        Some(false) if handheld => DeviceKind::Tablet,
        Some(false) if os != Os::Other => DeviceKind::Desktop,
        // The User-Agent named another system, so its kind does not hold either.
        None if os != device.os && handheld && device.kind != DeviceKind::Mobile => DeviceKind::Tablet,
        None if os != device.os && !handheld => DeviceKind::Desktop,
        _ => device.kind,
    };
    Device { kind, os, ..device }
}

fn mobile(hint: &str) -> Option<bool> {
    match hint.trim() {
        "?1" => Some(true),
        "?0" => Some(false),
        _ => None,
    }
}

fn platform(hint: &str) -> Option<Os> {
    match hint.trim().trim_matches('"') {
        "Android" => Some(Os::Android),
        "Chrome OS" | "Chromium OS" => Some(Os::ChromeOs),
        "iOS" => Some(Os::Ios),
        "Linux" => Some(Os::Linux),
        "macOS" => Some(Os::MacOs),
        "Windows" => Some(Os::Windows),
        _ => None,
    }
}

/// The part of a User-Agent that is read: at most [`AGENT_BYTES_MAX`] bytes, cut where a character begins.
fn bounded(agent: &str) -> &str {
    let mut end = agent.len().min(AGENT_BYTES_MAX);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    &agent[..end]
}

/// The longest User-Agents that people send are those of in-app browsers, some 600 bytes. A header may have many
/// kilobytes, and the sender would choose how long we work on it.
const AGENT_BYTES_MAX: usize = 1024;

/// A library runs on some server: whatever system it names is not a visitor's.
const LIBRARY: Device = Device { kind: DeviceKind::Other, os: Os::Other, browser: Browser::Other, bot: true };
