//! The tokens that woothee does not know, or gets wrong, and one pass over a User-Agent that finds them all.
//!
//! A token counts where a word begins: at a letter or a digit that follows neither of those nor `-` nor `_`, so that
//! `T-Mobile` is no `Mobile`. In the tables
//! - `Word` must end where the word ends, `Word*` may go on, and both may span spaces and marks (`Apple TV`);
//! - `^Word` counts only at the very beginning of the User-Agent.
//!
//! Case matters, as browsers never vary it; only the endings of [`MACHINE_ENDINGS`] are compared without it.
//!
//! The tables hold what is met on links, not every program that ever fetched a page: most crawlers give themselves
//! away by how their name ends, by an address in their text, or by calling themselves `compatible`.

use crate::types::{Browser, Os};

/// A set of the things that a User-Agent shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs(u32);

impl Signs {
    pub(super) const NONE: Signs = Signs(0);
    pub(super) const CONSOLE: Signs = Signs(1);
    pub(super) const TV: Signs = Signs(1 << 1);
    pub(super) const APPLE_TV: Signs = Signs(1 << 2);
    pub(super) const TABLET: Signs = Signs(1 << 3);
    pub(super) const PHONE: Signs = Signs(1 << 4);
    pub(super) const WINDOWS: Signs = Signs(1 << 5);
    pub(super) const MAC: Signs = Signs(1 << 6);
    pub(super) const IOS: Signs = Signs(1 << 7);
    pub(super) const ANDROID: Signs = Signs(1 << 8);
    pub(super) const CHROME_OS: Signs = Signs(1 << 9);
    pub(super) const LINUX: Signs = Signs(1 << 10);
    pub(super) const EDGE: Signs = Signs(1 << 11);
    pub(super) const OPERA: Signs = Signs(1 << 12);
    pub(super) const SAMSUNG: Signs = Signs(1 << 13);
    pub(super) const FIREFOX: Signs = Signs(1 << 14);
    pub(super) const CHROME: Signs = Signs(1 << 15);
    pub(super) const SAFARI: Signs = Signs(1 << 16);
    pub(super) const WEBKIT: Signs = Signs(1 << 17);
    pub(super) const VERSION_4: Signs = Signs(1 << 18);
    pub(super) const WV: Signs = Signs(1 << 19);
    pub(super) const APP: Signs = Signs(1 << 20);
    pub(super) const BOT: Signs = Signs(1 << 21);
    pub(super) const LIBRARY: Signs = Signs(1 << 22);
    pub(super) const COMPATIBLE: Signs = Signs(1 << 23);
    pub(super) const TRULY_COMPATIBLE: Signs = Signs(1 << 24);
    pub(super) const ON_WEB_VIEW: Signs = Signs(1 << 25);

    /// Everything that `agent` shows.
    pub(super) fn of(agent: &str) -> Signs {
        let bytes = agent.as_bytes();
        let mut signs = Signs::NONE;
        let mut at = 0;
        while at < bytes.len() {
            if !in_word(bytes[at]) {
                at += 1;
                continue;
            }
            let begin = at;
            while at < bytes.len() && in_word(bytes[at]) {
                at += 1;
            }
            if begin == 0 || !matches!(bytes[begin - 1], b'-' | b'_') {
                signs = signs.with(INDEX.signs_at(bytes, begin));
            }
            if names_a_machine(&bytes[begin..at]) {
                signs = signs.with(Signs::BOT);
            }
        }
        signs
    }

    pub(super) const fn with(self, more: Signs) -> Signs {
        Signs(self.0 | more.0)
    }

    pub(super) const fn any(self, of: Signs) -> bool {
        self.0 & of.0 != 0
    }

    pub(super) const fn all(self, of: Signs) -> bool {
        self.0 & of.0 == of.0
    }

    /// Whether a machine asks. Crawlers call themselves `compatible`; of people's browsers, only extinct ones did.
    pub(super) const fn machine(self) -> bool {
        self.any(Signs::BOT) || (self.any(Signs::COMPATIBLE) && !self.any(Signs::TRULY_COMPATIBLE))
    }

    /// The system. The order matters: a Windows Phone says Android too, and an Android says Linux.
    pub(super) fn os(self) -> Os {
        let order = [
            (Signs::WINDOWS, Os::Windows),
            (Signs::CHROME_OS, Os::ChromeOs),
            (Signs::ANDROID, Os::Android),
            (Signs::MAC, Os::MacOs),
            (Signs::IOS, Os::Ios),
            (Signs::LINUX, Os::Linux),
        ];
        order.iter().find(|(sign, _)| self.any(*sign)).map_or(Os::Other, |(_, os)| *os)
    }

    /// The browser that gives its own name beside the Chrome or Safari that every one of them claims to be.
    pub(super) fn browser(self) -> Option<Browser> {
        let order = [
            (Signs::EDGE, Browser::Edge),
            (Signs::OPERA, Browser::Opera),
            (Signs::SAMSUNG, Browser::Samsung),
            (Signs::FIREFOX, Browser::Firefox),
        ];
        order.iter().find(|(sign, _)| self.any(*sign)).map(|(_, browser)| *browser)
    }
}

/// A token, taken apart.
#[derive(Clone, Copy)]
struct Token {
    text: &'static [u8],
    /// Counts only where the User-Agent begins.
    first: bool,
    /// Must end where the word ends.
    whole: bool,
    sign: Signs,
}

impl Token {
    const fn new(spelled: &'static str, sign: Signs) -> Token {
        let mut text = spelled.as_bytes();
        let (mut first, mut whole) = (false, true);
        if let [b'^', rest @ ..] = text {
            (first, text) = (true, rest);
        }
        if let [rest @ .., b'*'] = text {
            (whole, text) = (false, rest);
        }
        assert!(text.len() >= 2, "a token has two bytes, which choose its bucket");
        Token { text, first, whole, sign }
    }

    const fn bucket(&self) -> usize {
        bucket_of(self.text[0], self.text[1])
    }

    fn stands_at(&self, bytes: &[u8], begin: usize) -> bool {
        let ends = begin + self.text.len();
        bytes[begin..].starts_with(self.text)
            && (!self.first || begin == 0)
            && (!self.whole || ends == bytes.len() || !in_word(bytes[ends]))
    }
}

/// All tokens, in buckets by their first two bytes, laid out at compile time. Most words of a browser's User-Agent
/// meet an empty bucket; searching for each token in turn would cost microseconds.
struct Index {
    tokens: [Token; TOKENS],
    /// Bucket `b` is `tokens[begins[b]..begins[b + 1]]`.
    begins: [u16; BUCKETS + 1],
}

impl Index {
    /// A counting sort: count each bucket, sum the counts to where the buckets end, place from the back.
    const fn new() -> Index {
        let all = every_token();
        let mut begins = [0; BUCKETS + 1];
        let mut row = 0;
        while row < TOKENS {
            begins[all[row].bucket()] += 1;
            row += 1;
        }
        let mut bucket = 1;
        while bucket <= BUCKETS {
            begins[bucket] += begins[bucket - 1];
            bucket += 1;
        }
        let mut tokens = all;
        row = 0;
        while row < TOKENS {
            let bucket = all[row].bucket();
            begins[bucket] -= 1;
            tokens[begins[bucket] as usize] = all[row];
            row += 1;
        }
        Index { tokens, begins }
    }

    fn signs_at(&self, bytes: &[u8], begin: usize) -> Signs {
        let [first, second, ..] = bytes[begin..] else { return Signs::NONE };
        let bucket = bucket_of(first, second);
        let tokens = &self.tokens[usize::from(self.begins[bucket])..usize::from(self.begins[bucket + 1])];
        tokens
            .iter()
            .filter(|token| token.stands_at(bytes, begin))
            .fold(Signs::NONE, |signs, token| signs.with(token.sign))
    }
}

const fn every_token() -> [Token; TOKENS] {
    let mut tokens = [Token::new("--", Signs::NONE); TOKENS];
    let (mut filled, mut table) = (0, 0);
    while table < TABLES.len() {
        let (sign, spelled) = TABLES[table];
        let mut row = 0;
        while row < spelled.len() {
            tokens[filled] = Token::new(spelled[row], sign);
            (filled, row) = (filled + 1, row + 1);
        }
        table += 1;
    }
    tokens
}

const fn bucket_of(first: u8, second: u8) -> usize {
    (first as usize * 37 + second as usize) % BUCKETS
}

/// Bytes beyond ASCII belong to words, or half a foreign letter would begin one.
const fn in_word(byte: u8) -> bool {
    IN_WORD[byte as usize]
}

/// Whether a word is the name of a crawler: `AhrefsBot`, `bingbot`, `Bytespider`, and the `bot` of `…/bot.html`.
fn names_a_machine(word: &[u8]) -> bool {
    let Some(last) = word.last() else { return false };
    // Every ending of the table has one of these last letters; most words are done here.
    matches!(last | 0x20, b't' | b'r' | b'w')
        && MACHINE_ENDINGS.iter().any(|ending| ends_with(word, ending))
        && !PEOPLES_WORDS.iter().any(|name| word.eq_ignore_ascii_case(name))
}

fn ends_with(word: &[u8], ending: &[u8]) -> bool {
    word.len() >= ending.len() && word[word.len() - ending.len()..].eq_ignore_ascii_case(ending)
}

const BUCKETS: usize = 512;

const TOKENS: usize = {
    let (mut count, mut table) = (0, 0);
    while table < TABLES.len() {
        count += TABLES[table].1.len();
        table += 1;
    }
    count
};

/// A table, since the scan asks it of every byte.
static IN_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 0x80 || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

static INDEX: Index = Index::new();

const MACHINE_ENDINGS: &[&[u8]] = &[
    b"bot",
    b"spider",
    b"crawler",
    b"scraper",
    b"fetcher",
    b"scanner",
    b"checker",
    b"validator",
    b"monitor",
    b"preview",
];

/// Words that end like a crawler's name and belong to people: Cubot makes phones.
const PEOPLES_WORDS: &[&[u8]] = &[b"cubot"];

const TABLES: &[(Signs, &[&str])] = &[
    (Signs::CONSOLE, CONSOLES),
    (Signs::TV, TELEVISIONS),
    (Signs::TV, APPLE_TELEVISIONS),
    (Signs::APPLE_TV, APPLE_TELEVISIONS),
    (Signs::TABLET, TABLETS),
    (Signs::PHONE, PHONES),
    (Signs::WINDOWS, &["Windows"]),
    (Signs::MAC, &["Macintosh"]),
    (Signs::IOS, ON_IOS),
    (Signs::ANDROID, &["Android", "FB4A"]),
    (Signs::CHROME_OS, &["CrOS"]),
    (Signs::LINUX, ON_LINUX),
    (Signs::EDGE, &["Edg/*", "EdgA/*", "EdgiOS/*", "Edge/*"]),
    (Signs::OPERA, &["OPR/*", "OPT/*", "OPX/*", "OPiOS/*", "Opera"]),
    (Signs::SAMSUNG, &["SamsungBrowser"]),
    (Signs::FIREFOX, &["Firefox", "FxiOS"]),
    (Signs::CHROME, &["Chrome", "Chromium", "CriOS", "HeadlessChrome"]),
    (Signs::SAFARI, &["Safari"]),
    (Signs::WEBKIT, &["AppleWebKit"]),
    (Signs::VERSION_4, &["Version/4.0"]),
    (Signs::WV, &["wv"]),
    (Signs::ON_WEB_VIEW, ON_WEB_VIEWS),
    (Signs::APP, APPS),
    (Signs::BOT, AI_AGENTS),
    (Signs::BOT, PREVIEWS),
    (Signs::BOT, CRAWLERS),
    (Signs::BOT, DRIVEN_BROWSERS),
    (Signs::LIBRARY, LIBRARIES),
    (Signs::COMPATIBLE, &["compatible"]),
    (Signs::TRULY_COMPATIBLE, &["MSIE", "IEMobile", "Konqueror"]),
];

const CONSOLES: &[&str] = &["PlayStation*", "PLAYSTATION", "Nintendo*", "Xbox", "XBOX*", "XboxOne*"];

const TELEVISIONS: &[&str] = &[
    "SMART-TV",
    "SmartTV*",
    "Smart-TV",
    "SmartTv*",
    "SMARTTV*",
    "Smart TV",
    "HbbTV",
    "TV",
    "GoogleTV",
    "AndroidTV",
    "Android TV",
    "MiTV*",
    "MIBOX*",
    "DTV*",
    "NetCast*",
    "Web0S",
    "webOS.TV*",
    "CrKey",
    "Roku*",
    "BRAVIA*",
    "AFT*",
    "Viera",
    "VIERA",
    "VIDAA",
    "ViziOS",
    "VIZIO",
    "SmartCast*",
    "AQUOSBrowser",
    "AquosTV*",
    "NETTV",
    "InettvBrowser",
    "PhilipsTV",
    "MagentaTV*",
    "smart-tv",
    "SHIELD Android",
    "Chromecast",
    "Espial",
    "LG Browser",
    "WhaleTV",
    "TiVo*",
    "SmartHub",
    "Maple*",
    "OMI/*",
    "CE-HTML*",
    "SonyCEBrowser",
    "TSBNetTV",
    "LGE NetCast",
];

const APPLE_TELEVISIONS: &[&str] = &["AppleTV*", "Apple TV", "tvOS"];

const TABLETS: &[&str] = &["iPad*", "Tablet", "PlayBook", "Kindle"];

const PHONES: &[&str] = &[
    "Mobile",
    "Mobi",
    "iPhone*",
    "iPod*",
    "Opera Mini",
    "KAIOS",
    "BB10",
    "BlackBerry*",
    "MIDP*",
    "Symbian*",
];

const ON_IOS: &[&str] = &["iPhone*", "iPad*", "iPod*", "iOS", "CriOS", "FxiOS", "EdgiOS", "OPiOS", "FBIOS"];

const ON_LINUX: &[&str] = &["Linux", "LINUX", "Tizen", "Web0S", "webOS*"];

/// Browsers that people choose, built on the system's web view.
const ON_WEB_VIEWS: &[&str] = &[
    "MiuiBrowser",
    "UCBrowser",
    "Quark",
    "DuckDuckGo",
    "HuaweiBrowser",
    "HeyTapBrowser",
    "VivoBrowser",
    "MQQBrowser",
    "YaBrowser",
    "Puffin",
    "Ddg",
    "Phoenix/*",
    "Focus/*",
    "Klar/*",
    "Silk",
];

/// In-app browsers.
const APPS: &[&str] = &[
    "FBAN",
    "FBAV",
    "FB_IAB",
    "Instagram",
    "Barcelona",
    "MessengerForiOS",
    "musical_ly*",
    "trill*",
    "BytedanceWebview",
    "TikTok*",
    "TTWebView",
    "BytedanceSpeech",
    "Line/*",
    "Snapchat",
    "Pinterest/iOS",
    "Pinterest/Android",
    "Pinterest for*",
    "Twitter for*",
    "TwitterAndroid",
    "LinkedInApp",
    "GSA",
    "MicroMessenger",
    "KAKAOTALK",
    "NAVER*",
    "DaumApps",
    "WhatsApp*",
    "Telegram",
    "Telegram-Android",
    "Telegram-iOS",
    "Reddit*",
    "Viber",
    "Zalo*",
    "VKAndroidApp",
    "VKClient",
    "VKShareApp",
    "YandexSearch",
    "YaApp*",
    "Weibo",
    "WeiboIntl",
    "QQ/*",
    "baiduboxapp",
    "AlipayClient",
    "DingTalk",
    "AliApp*",
    "Lark",
    "TeamsMobile*",
    "Slack/*",
    "Slack_SSB",
    "Discord",
    "discord",
    "Electron",
    "YJApp*",
    "SmartNews",
    "Flipboard",
    "Tumblr*",
    "Quora*",
    "Bluesky",
    "Valve*",
    "Kwai*",
    "ShopeeApp",
];

/// Assistants that fetch while somebody chats, and the crawlers behind them. Those that end in `bot` need no row.
const AI_AGENTS: &[&str] = &[
    "ChatGPT-User",
    "Claude-User",
    "Claude-Web",
    "Perplexity-User",
    "MistralAI-User",
    "Google-*",
    "GoogleOther*",
    "GoogleAgent*",
    "Gemini-Deep-Research",
    "meta-external*",
    "meta-webindexer",
    "Meta-External*",
    "anthropic-ai",
    "cohere-ai",
    "Amzn-*",
    "NovaAct",
    "Novaact",
    "Manus-User",
    "DuckAssist*",
    "Diffbot*",
    "FirecrawlAgent",
    "img2dataset",
    "omgili*",
];

/// Agents that fetch a page to draw a card of it. WhatsApp's fetcher begins with its name; its browser does not.
const PREVIEWS: &[&str] = &[
    "^WhatsApp*",
    "^Viber*",
    "^Telegram*",
    "^Valve*",
    "facebookexternalhit",
    "facebookcatalog",
    "SkypeUriPreview*",
    "BingPreview",
    "MicrosoftPreview",
    "Slack-ImgProxy",
    "Yahoo Link Preview",
    "SnapURLPreview",
    "Iframely*",
    "Embedly*",
    "vkShare",
    "Cardyb",
    "Mastodon*",
    "kakaotalk-scrap",
    "GoogleImageProxy",
    "YahooMailProxy",
    "FlipboardProxy",
];

const CRAWLERS: &[&str] = &[
    // Browsers carry no address; whoever tells where to read about it, or how to write to it, is a program.
    "http:*",
    "https:*",
    "www.*",
    "Mediapartners-Google*",
    "APIs-Google",
    "AppEngine-Google",
    "PlayStore-Google",
    "Chrome-Lighthouse",
    "GTmetrix*",
    "PTST*",
    "Pingdom*",
    "pingdom*",
    "StatusCake*",
    "Site24x7*",
    "Datadog*",
    "Checkly*",
    "Catchpoint*",
    "UptimeRobot",
    "Uptime-Kuma",
    "kube-probe",
    "ELB-HealthChecker",
    "YandexImages",
    "YandexMetrika",
    "YandexFavicons",
    "YandexDirect*",
    "YandexWebmaster",
    "YandexPagechecker",
    "Slurp",
    "Yeti",
    "Qwantify*",
    "HTTrack*",
    "ia_archiver*",
    "heritrix*",
    "NetcraftSurveyAgent",
    "CensysInspect",
    "zgrab",
    "Nmap*",
    "Nikto*",
    "sqlmap*",
    "masscan*",
    "Amazon-Route53-Health-Check*",
    "AHC/*",
    "check_http",
    "GoogleHC",
    "virustotal*",
    "Barkrowler",
    "OnCrawl*",
    "Screaming Frog*",
    "sitebulb*",
    "SEOkicks*",
    "Seobility*",
    "Dataprovider*",
    "W3C_*",
    "NewsBlur*",
];

/// Browsers that a program drives.
const DRIVEN_BROWSERS: &[&str] = &[
    "HeadlessChrome",
    "HeadlessEdg",
    "HeadlessShell",
    "PhantomJS",
    "SlimerJS",
    "Puppeteer*",
    "Playwright*",
    "Selenium*",
    "Cypress",
    "jsdom",
    "splash",
    "Nightmare",
    "Prerender*",
    "Rendertron*",
    "wkhtmlto*",
    "HtmlUnit",
];

/// HTTP clients of programs, and the network stacks of apps: no page is shown, so nobody clicked.
const LIBRARIES: &[&str] = &[
    "^curl*",
    "libcurl*",
    "^Wget*",
    "^wget*",
    "python-requests",
    "python-httpx*",
    "^Python*",
    "^python*",
    "aiohttp*",
    "Scrapy",
    "PycURL*",
    "Go-http-client",
    "^Go *",
    "^go-resty*",
    "okhttp*",
    "^Java/*",
    "^Java-*",
    "Apache-HttpClient",
    "Apache-HttpAsyncClient",
    "Jakarta Commons*",
    "^Jersey*",
    "^ReactorNetty*",
    "^Ktor*",
    "^ktor*",
    "^axios*",
    "^node",
    "^node-*",
    "node-fetch",
    "^undici*",
    "^got",
    "^Deno/*",
    "^Bun/*",
    "^superagent*",
    "libwww-perl*",
    "^LWP*",
    "^Perl*",
    "^Mojolicious*",
    "^Ruby*",
    "^ruby*",
    "^Faraday*",
    "^rest-client*",
    "^http.rb*",
    "^Typhoeus*",
    "^PHP*",
    "GuzzleHttp*",
    "^Guzzle*",
    "^Symfony*",
    "^WordPress*",
    "^reqwest*",
    "^hyper*",
    "^ureq*",
    "^Dart*",
    "^RestSharp*",
    "^Microsoft-HttpApi*",
    "PostmanRuntime*",
    "^insomnia*",
    "^Insomnia*",
    "^HTTPie*",
    "^Bruno*",
    "^k6*",
    "^ApacheBench*",
    "^hey/*",
    "^oha*",
    "^wrk*",
    "^Lavf*",
    "^Dalvik*",
    "Dalvik",
    "CFNetwork",
    "Cronet*",
    "^Prometheus*",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(agent: &str, sign: Signs) -> bool {
        Signs::of(agent).any(sign)
    }

    #[test]
    fn every_token_is_found_alone() {
        for (sign, spelled) in TABLES {
            for token in *spelled {
                let text = token.trim_start_matches('^').trim_end_matches('*');
                assert!(shows(text, *sign), "{token} alone");
                assert_eq!(
                    shows(&format!("Agent/1.0 ({text})"), *sign),
                    found_inside(token, *sign),
                    "{token} inside"
                );
            }
        }
    }

    /// `^Word` is not, unless another row of the same sign says so.
    fn found_inside(token: &str, sign: Signs) -> bool {
        let Some(first) = token.strip_prefix('^') else { return true };
        let text = first.trim_end_matches('*');
        let same = TABLES.iter().filter(|(other, _)| *other == sign).flat_map(|(_, spelled)| spelled.iter());
        same.filter(|other| !other.starts_with('^')).any(|other| other.trim_end_matches('*') == text)
    }

    #[test]
    fn words_begin_and_end() {
        assert!(shows("Linux; Android 15; K) Mobile Safari", Signs::PHONE));
        assert!(!shows("Linux; Android 15; T-Mobile REVVL Tab", Signs::PHONE));
        assert!(!shows("MobileShop/1.0", Signs::PHONE));
        assert!(shows("Linux; Android 11; AFTKM", Signs::TV));
        assert!(!shows("Linux; Android 11; RAFTKM", Signs::TV));
        assert!(shows("X11; wv", Signs::WV));
        assert!(!shows("LMwv; wvx", Signs::WV));
        assert!(!shows("éTV TVé", Signs::TV), "a foreign letter belongs to its word");
    }

    #[test]
    fn whatsapp_fetches_and_shows() {
        assert!(Signs::of("WhatsApp/2.25.27.76 A").machine());
        assert!(!Signs::of("Mozilla/5.0 (iPhone) AppleWebKit/605 WhatsApp/25.27.73").machine());
    }

    #[test]
    fn machines_are_named_by_their_endings() {
        for agent in
            ["newbot", "NewBot/1.0", "NEWSPIDER", "x crawler-7", "+http://a.example/", "(compatible; New)"]
        {
            assert!(Signs::of(agent).machine(), "{agent}");
        }
        for agent in
            ["CUBOT", "CUBOT_X18", "Cubot", "robotic", "Spiderman", "(compatible; MSIE 10.0)", "Abbott"]
        {
            assert!(!Signs::of(agent).machine(), "{agent}");
        }
    }
}
