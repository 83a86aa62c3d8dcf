//! A browser of the test's own, driven as a person drives one: it opens, clicks, types, presses keys, and looks.
//!
//! Needs `chromedriver` and `chromium` in the path. Without them, `None` is started, and the test says that it is
//! skipped; with `SMARTLINK_NEED_CHROMIUM`, it fails. With `SMARTLINK_SCREENSHOTS=DIR`, what is shot is kept there.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::{ParseError, Url};

use crate::support::wait;

/// A headless browser; it ends with it.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    driver: Child,
    _profile: TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub dark: bool,
    pub width: u32,
    pub height: u32,
}

pub const WIDE: View = View { dark: false, width: 1280, height: 1000 };
pub const NARROW: View = View { dark: false, width: 400, height: 800 };

impl View {
    pub const fn dark(self) -> Self {
        Self { dark: true, ..self }
    }

    fn name(self) -> String {
        format!(
            "{}-{}",
            if self.width < 600 { "narrow" } else { "wide" },
            if self.dark { "dark" } else { "light" }
        )
    }
}

impl Browser {
    /// `None`: there is none to start.
    pub fn start() -> Option<Self> {
        let Some(mut driver) = spawn_driver() else {
            assert!(
                std::env::var_os("SMARTLINK_NEED_CHROMIUM").is_none(),
                "there is no chromedriver or no chromium in the path"
            );
            eprintln!("skipped: there is no chromedriver or no chromium in the path");
            return None;
        };
        let address = driver_address(&mut driver);
        let profile = TempDir::new().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            // Root, as in a container, has no sandbox; what is opened is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--force-device-scale-factor=1",
            data.as_str(),
        ];
        let capabilities: Map<String, Value> = serde_json::from_value(json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }))
        .unwrap();
        let connecting = async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities).connect(&address).await
        };
        let client = runtime.block_on(connecting).expect("chromedriver starts a browser");
        Some(Self { runtime, client, driver, _profile: profile })
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.wait(self.client.goto(url)).unwrap_or_else(|error| panic!("cannot open {url}: {error}"));
    }

    /// Sets the size of the window and the colours that the visitor prefers.
    pub fn look(&self, view: View) {
        self.wait(self.client.set_window_size(view.width, view.height)).unwrap();
        let scheme = if view.dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.developer("Emulation.setEmulatedMedia", media);
        // A window has a least width; a page is as wide as it is told.
        let metrics =
            json!({"width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": false});
        self.developer("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// What an element says, once it is there.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        wait::until(&format!("{css} on the page"), || {
            let element = self.wait(self.client.find(Locator::Css(css))).ok()?;
            self.wait(element.text()).ok()
        })
    }

    /// How many such elements there are.
    pub fn count(&self, css: &str) -> usize {
        self.wait(self.client.find_all(Locator::Css(css))).unwrap().len()
    }

    #[track_caller]
    pub fn click(&self, css: &str) {
        let element = self.wait(self.client.find(Locator::Css(css))).unwrap_or_else(|_| panic!("no {css}"));
        self.wait(element.click()).unwrap_or_else(|error| panic!("cannot click {css}: {error}"));
    }

    /// Types into a field, in place of what is there.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.wait(self.client.find(Locator::Css(css))).unwrap_or_else(|_| panic!("no {css}"));
        self.wait(element.clear()).unwrap();
        self.wait(element.send_keys(text)).unwrap();
    }

    /// Types where the focus is.
    pub fn type_in(&self, text: &str) {
        let element = self.wait(self.client.active_element()).unwrap();
        self.wait(element.send_keys(text)).unwrap();
    }

    /// Chooses what is called so, of a list that drops down.
    #[track_caller]
    pub fn choose(&self, css: &str, label: &str) {
        let element = self.wait(self.client.find(Locator::Css(css))).unwrap_or_else(|_| panic!("no {css}"));
        self.wait(element.select_by_label(label)).unwrap_or_else(|error| panic!("{label} in {css}: {error}"));
    }

    /// Runs no script of the pages that are opened from now on.
    pub fn without_scripts(&self) {
        self.developer("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    }

    /// Presses a key where the focus is.
    pub fn press(&self, key: Key) {
        let element = self.wait(self.client.active_element()).unwrap();
        self.wait(element.send_keys(key.code())).unwrap();
    }

    /// What a script answers: `return document.title`.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.wait(self.client.execute(script, Vec::new())).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// The path and query of the page.
    pub fn path(&self) -> String {
        let url = self.wait(self.client.current_url()).unwrap();
        url[url::Position::BeforePath..].to_owned()
    }

    /// What the browser has complained of since it was last asked: errors and warnings, refusals of the policy among them.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.wait(self.client.issue_cmd(ReadLog)).unwrap();
        let entries = log.as_array().unwrap().iter();
        let complaints = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        complaints.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Keeps a picture of the whole page, if somebody wants to look at it.
    pub fn shoot(&self, name: &str, view: View) {
        let Some(directory) = std::env::var_os("SMARTLINK_SCREENSHOTS") else { return };
        let height = self.run("return document.documentElement.scrollHeight").as_u64().unwrap();
        let metrics = json!({"width": view.width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.developer("Emulation.setDeviceMetricsOverride", metrics);
        let path = PathBuf::from(directory).join(format!("{name}-{}.png", view.name()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.wait(self.client.screenshot()).unwrap()).unwrap();
        self.look(view);
    }

    /// A command of the developers' protocol.
    fn developer(&self, command: &'static str, parameters: Value) {
        self.wait(self.client.issue_cmd(Developer { command, parameters })).unwrap();
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes the browser; a test that failed in the middle may have left it busy.
        let _ = self.runtime.block_on(self.client.clone().close());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A key without a character.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Tab,
    Enter,
}

impl Key {
    /// As WebDriver writes it.
    fn code(self) -> &'static str {
        match self {
            Key::Tab => "\u{e004}",
            Key::Enter => "\u{e007}",
        }
    }
}

fn spawn_driver() -> Option<Child> {
    let has_browser =
        Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    has_browser.ok().filter(|status| status.success())?;
    Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
}

/// Where it says that it listens.
fn driver_address(driver: &mut Child) -> String {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse::<u16>().ok()
    });
    format!("http://127.0.0.1:{}", port.expect("chromedriver says its port"))
}

#[derive(Debug)]
struct ReadLog;

impl WebDriverCompatibleCommand for ReadLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({"type": "browser"}).to_string()))
    }
}

#[derive(Debug)]
struct Developer {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for Developer {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        let body = json!({"cmd": self.command, "params": self.parameters});
        (http::Method::POST, Some(body.to_string()))
    }
}
