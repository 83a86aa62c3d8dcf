//! The real program, started in a directory of its own on ports of the system's choice, and ended with the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::disk::Disk;
use super::http::{Answer, Connection, Request};
use super::wait;

/// How a node is started. Its directory outlives the node, so that it can be started on it again.
pub struct Setup {
    directory: tempfile::TempDir,
    settings: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    program: PathBuf,
    /// Clicks, and admin.
    listen: [SocketAddr; 2],
    /// Where the data are, if not on everybody's.
    disk: Option<Disk>,
    /// Sockets that the program is given, by their names.
    passed: Vec<(&'static str, OwnedFd)>,
}

/// A running node. Dropping it kills it.
pub struct Node {
    setup: Option<Setup>,
    child: Child,
    log: Log,
    /// Reads the log; ends with the process.
    reader: Option<JoinHandle<()>>,
    pub clicks: SocketAddr,
    pub admin: SocketAddr,
}

/// What a node has said on standard error so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

/// A scrape.
pub struct Metrics(pub String);

impl Setup {
    /// The embedded API with an empty network. No interval refreshes it: it sees a change when its API tells of it, or
    /// when it is told to look.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            settings: Vec::new(),
            flags: Vec::new(),
            environment: Vec::new(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_smartlink")),
            listen: [SocketAddr::from(([127, 0, 0, 1], 0)); 2],
            disk: None,
            passed: Vec::new(),
        }
        .setting("upstream.refresh_interval_seconds = 3600.0")
        // Many nodes at once, each with two segments a thread.
        .setting("click_log.segment_bytes = 1048576")
    }

    /// The embedded API with the demonstration network.
    pub fn demo() -> Self {
        Self::new().flag("--demo")
    }

    /// Another node's API is the upstream.
    pub fn following(node: &Node) -> Self {
        let key = node.data().join("api-key");
        Self::of_upstream(&format!("http://{}", node.admin), &std::fs::read_to_string(key).unwrap())
    }

    /// This URL is the upstream, and this is the key for it.
    pub fn of_upstream(url: &str, key: &str) -> Self {
        let setup = Self::new().flag("--upstream").flag(url);
        let path = setup.path().join("upstream-key");
        std::fs::write(&path, key).unwrap();
        setup.variable("SMARTLINK_API_KEY_FILE", path.to_str().unwrap())
    }

    /// On these addresses: those of a node that is gone and comes back.
    pub fn on(mut self, clicks: SocketAddr, admin: SocketAddr) -> Self {
        self.listen = [clicks, admin];
        self
    }

    /// The same with another upstream.
    pub fn moved_to(mut self, url: &str) -> Self {
        let flag = self.flags.iter().position(|flag| flag == "--upstream").expect("it has an upstream");
        url.clone_into(&mut self.flags[flag + 1]);
        self
    }

    /// A line of the configuration, its key in full: `edge.bots = "block"`. In place of one with the same key.
    pub fn setting(mut self, line: &str) -> Self {
        let key = |line: &str| line.split(" = ").next().map(str::to_owned);
        self.settings.retain(|other| key(other) != key(line));
        self.settings.push(line.to_owned());
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a disk of so many bytes for its data. `None`, with the reason printed, where that cannot be.
    pub fn on_a_disk_of(self, bytes: u64) -> Option<Self> {
        let disk = Some(Disk::mount(&self.path().join("data"), bytes)?);
        Some(Self { disk, ..self })
    }

    /// The disk of its data.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it has a disk of its own")
    }

    /// With a socket that stays open when the node ends, as systemd passes it: at most two.
    pub fn passing(mut self, name: &'static str, socket: impl AsFd) -> Self {
        self.passed.push((name, socket.as_fd().try_clone_to_owned().unwrap()));
        assert!(self.passed.len() <= 2, "they go by way of standard input and output");
        self
    }

    /// Another build than the tests' own.
    pub fn program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Where the node lives; the test may put files beside its data.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory, as the test sees it.
    pub fn data(&self) -> PathBuf {
        let data = self.path().join("data");
        self.disk.as_ref().map_or_else(|| data.clone(), |disk| disk.seen_from_outside(&data))
    }

    /// Starts the program and waits until it has said where it listens.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = self.start_and_fail();
        node.clicks = node.wait_for_address("clicks on http://");
        node.admin = node.wait_for_address("admin on http://");
        node
    }

    /// Starts the program, which is not expected to listen.
    #[track_caller]
    pub fn start_and_fail(mut self) -> Node {
        let configuration = self.write_configuration();
        let [clicks, admin] = self.listen.map(|address| address.to_string());
        let mut passed = std::mem::take(&mut self.passed);
        let mut command = match &self.disk {
            None if !passed.is_empty() => {
                let mut command = Command::new("/bin/sh");
                // The process that the shell becomes has its id, and the sockets from 3 on.
                command.args(["-c", PASS]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
            Some(disk) => {
                let mut command = disk.command(self.path());
                command.arg(&self.program);
                command
            }
        };
        let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
        let sockets = [("LISTEN_FDS", names.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))];
        let mut next = || passed.drain(..1.min(passed.len())).next().map(|(_, socket)| socket.into());
        let (first, second) = (next().unwrap_or_else(Stdio::null), next().unwrap_or_else(Stdio::null));
        let mut child = command
            .args(["serve", "--listen", &clicks, "--admin", &admin, "--data-dir", "data", "--config"])
            .arg(&configuration)
            .args(&self.flags)
            .current_dir(self.path())
            // Whatever the developer has set for their own node is none of this one's business.
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(sockets.into_iter().filter(|_| !names.is_empty()))
            .stdin(first)
            .stdout(second)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        let (stderr, written) = (child.stderr.take().unwrap(), log.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = written.0.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let setup = Some(self);
        Node { setup, child, log, reader: Some(reader), clicks: unknown, admin: unknown }
    }

    fn write_configuration(&self) -> PathBuf {
        let path = self.path().join("smartlink.toml");
        std::fs::write(&path, self.settings.join("\n")).unwrap();
        path
    }

    /// Starts the program and waits until it is ready.
    #[track_caller]
    pub fn start_ready(self) -> Node {
        let node = self.start();
        node.wait_ready();
        node
    }
}

impl Node {
    pub fn directory(&self) -> &Path {
        self.setup.as_ref().expect("the node still has its directory").path()
    }

    /// The disk of its data.
    pub fn disk(&self) -> &Disk {
        self.setup.as_ref().expect("the node still has its directory").disk()
    }

    /// The data directory, as the test sees it.
    pub fn data(&self) -> PathBuf {
        self.setup.as_ref().expect("the node still has its directory").data()
    }

    /// The file that this node starts from when its upstream is away.
    pub fn last_good(&self) -> PathBuf {
        self.data().join("snapshot.last-good")
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The program that it runs, on its data directory: `log cat`.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let setup = self.setup.as_ref().expect("the node still has its directory");
        let mut command = Command::new(&setup.program);
        command.env_clear().args(arguments).arg("--data-dir").arg(setup.path().join("data"));
        command.output().unwrap()
    }

    /// Every line of the click log.
    #[track_caller]
    pub fn click_log(&self) -> Vec<Value> {
        let said = self.command(&["log", "cat"]);
        assert!(said.status.success(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many clicks its log has that were charged to the caps of this offer.
    pub fn clicks_logged(&self, offer: i64) -> u64 {
        let is_charged =
            |line: &&Value| line["offer_id"] == offer && line["bot"] == false && line["probe"] == false;
        self.click_log().iter().filter(is_charged).count() as u64
    }

    /// The key of the embedded API.
    pub fn key(&self) -> String {
        std::fs::read_to_string(self.data().join("api-key")).unwrap().trim().to_owned()
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log has a line with all of these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) {
        wait::until(&format!("the log to say {words:?} in\n{}", self.log()), || {
            self.logged(words).then_some(())
        });
    }

    /// Waits until the log, behind its first `bytes`, has a line with all of these words.
    #[track_caller]
    pub fn wait_for_log_behind(&self, bytes: usize, words: &[&str]) {
        wait::until(&format!("the log to say {words:?} in\n{}", &self.log()[bytes..]), || {
            let has_all = |line: &str| words.iter().all(|word| line.contains(word));
            self.log()[bytes..].lines().any(has_all).then_some(())
        });
    }

    /// Whether the log has a line with all of these words.
    pub fn logged(&self, words: &[&str]) -> bool {
        self.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.clicks)
    }

    /// A person's click, on a connection of its own.
    #[track_caller]
    pub fn click(&self, target: &str) -> Answer {
        self.ask(&Request::click(target))
    }

    /// A request to the click listener, on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request)
    }

    /// A request to the admin listener.
    #[track_caller]
    pub fn admin(&self, method: &str, target: &str) -> Answer {
        let host = self.admin.to_string();
        Connection::to(self.admin).ask(&Request::new(method, target).with("Host", &host).body(""))
    }

    pub fn readyz(&self) -> u16 {
        self.admin("GET", "/readyz").status
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        wait::until_equal("/readyz", 200, || self.readyz());
    }

    /// A refresh that succeeds, and what it says.
    #[track_caller]
    pub fn refresh(&self) -> Value {
        self.refresh_with("", 200)
    }

    /// A refresh that ends in this status, and what it says.
    #[track_caller]
    pub fn refresh_with(&self, parameters: &str, status: u16) -> Value {
        let answer = self.admin("POST", &format!("/refresh{parameters}"));
        assert_eq!(answer.status, status, "{answer:?}\n{}", self.log());
        answer.json()
    }

    /// A refresh that fails, and why.
    #[track_caller]
    pub fn failed_refresh(&self) -> String {
        let report = self.refresh_with("", 502);
        assert_eq!(report["result"], "failed", "{report}");
        report["error"].as_str().unwrap_or_else(|| panic!("no reason in {report}")).to_owned()
    }

    /// A call of the embedded API that succeeds.
    #[track_caller]
    pub fn post(&self, call: &str, fields: Value) -> Value {
        let answer = self.try_post(call, fields);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A call of the embedded API, whatever comes of it.
    #[track_caller]
    pub fn try_post(&self, call: &str, mut fields: Value) -> Answer {
        fields["api_key"] = self.key().into();
        let request = Request::new("POST", &format!("/api/2/{call}"))
            .with("Host", &self.admin.to_string())
            .with("Content-Type", "application/json")
            .body(fields.to_string());
        Connection::to(self.admin).ask(&request)
    }

    /// Creates an offer and answers its id.
    #[track_caller]
    pub fn create_offer(&self, url: &str) -> i64 {
        let made =
            self.post("offer.json", serde_json::json!({"offer_name": "made by a test", "offer_url": url}));
        made["offer"]["offer_id"].as_i64().unwrap()
    }

    /// Creates a link with these fields besides its name and answers its id.
    #[track_caller]
    pub fn create_link(&self, mut fields: Value) -> i64 {
        fields["smart_link_name"] = "made by a test".into();
        self.post("smart_link.json", fields)["response"]["smart_link_id"].as_i64().unwrap()
    }

    #[track_caller]
    pub fn attach(&self, link: i64, offer: i64) {
        self.post("smart_link_offer.json", serde_json::json!({"smart_link_id": link, "offer_id": offer}));
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.admin("GET", "/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(answer.body)
    }

    /// Bytes of memory that are resident, and that were at the most.
    pub fn memory(&self) -> (u64, u64) {
        (self.status_bytes("VmRSS:"), self.status_bytes("VmHWM:"))
    }

    /// Bytes of memory that are resident and its own: without what is mapped of files, as the click log is.
    pub fn own_memory(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What the process has had of the processors, to a hundredth of a second.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name in parentheses: from the third field on.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks = |nth: usize| fields[nth - 3].parse::<u64>().unwrap();
        Duration::from_millis((ticks(14) + ticks(15)) * 10)
    }

    /// Has these lines in its configuration, in place of those with the same keys, and is told so by SIGHUP. Answers the line that
    /// it says of it.
    #[track_caller]
    pub fn reload(&mut self, lines: &[&str]) -> String {
        self.configure(lines);
        let said = self.log().len();
        self.signal("HUP");
        wait::until("the node to say what SIGHUP came to", || {
            self.log()[said..].lines().find(|line| line.contains("SIGHUP: ")).map(str::to_owned)
        })
    }

    /// Has these lines in its configuration, in place of those with the same keys, and is not told so.
    pub fn configure(&mut self, lines: &[&str]) {
        let setup = self.setup.take().expect("the node still has its directory");
        let setup = lines.iter().fold(setup, |setup, line| setup.setting(line));
        setup.write_configuration();
        self.setup = Some(setup);
    }

    /// Without the line of this key, from the next time that its configuration is written.
    pub fn forget_setting(mut self, key: &str) -> Self {
        let setup = self.setup.as_mut().expect("the node still has its directory");
        setup.settings.retain(|line| line.split(" = ").next() != Some(key));
        self
    }

    /// SIGTERM, SIGHUP … by name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGSTOP. When this returns, no thread of it runs any more.
    #[track_caller]
    pub fn pause(&self) {
        self.signal("STOP");
        wait::until("every thread to have stopped", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            let is_stopped = |task: std::fs::DirEntry| {
                // One that has just ended has none.
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            };
            tasks.map(Result::unwrap).all(is_stopped).then_some(())
        });
    }

    /// Waits until the process has ended by itself and all its log is here.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let what = format!("the node to exit; its log:\n{}", self.log.text());
        let status = wait::until(&what, || child.try_wait().unwrap());
        self.read_whole_log();
        status
    }

    /// Whether the process has ended; another one may still write to its log.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The next process on its directory, which takes over from this one; it says where it listens when it does.
    #[track_caller]
    pub fn successor(&mut self) -> Node {
        self.successor_with(|setup| setup)
    }

    /// The same, set up otherwise.
    #[track_caller]
    pub fn successor_with(&mut self, change: impl FnOnce(Setup) -> Setup) -> Node {
        self.leave(change).start()
    }

    /// Its directory for the next process, which is told to take over.
    pub fn leave(&mut self, change: impl FnOnce(Setup) -> Setup) -> Setup {
        let mut setup = change(self.setup.take().expect("the node still has its directory"));
        setup.flags.retain(|flag| flag != TAKEOVER);
        setup.flag(TAKEOVER)
    }

    /// Has its directory back, from a process that did not take over.
    pub fn take_back(&mut self, mut from: Node) {
        let _ = from.wait_for_exit();
        self.setup = from.setup.take();
    }

    /// kill -9. What remains is the directory, to start on it again.
    pub fn kill(mut self) -> Setup {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.setup.take().expect("the node still has its directory")
    }

    /// The address that a line of the log tells behind these words: `clicks on http://127.0.0.1:41234/sl`.
    #[track_caller]
    pub fn wait_for_address(&mut self, words: &str) -> SocketAddr {
        wait::until(&format!("the node to say {words:?}"), || {
            let text = self.log.text();
            let address = text.split_once(words).and_then(|(_, rest)| rest.split(['/', '\n']).next());
            if address.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("the node ended ({status}) before it listened");
            }
            address.and_then(|address| address.parse().ok())
        })
    }

    fn read_whole_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

const TAKEOVER: &str = "--takeover";

const PASS: &str = "LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >/dev/null";

/// To a process that this test has started.
pub fn signal(process: u32, name: &str) {
    // A shell's own `kill` is on every system.
    let status = Command::new("/bin/sh").arg("-c").arg(format!("kill -s {name} {process}")).status();
    assert!(status.unwrap().success(), "cannot send {name}");
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_whole_log();
        if thread::panicking() {
            eprintln!("--- the log of the node on {}:\n{}---", self.clicks, self.log());
        }
    }
}

impl Log {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Metrics {
    /// A series by its full name with labels; 0 if it is not there.
    #[track_caller]
    pub fn value(&self, series: &str) -> u64 {
        self.series().find(|(name, _)| *name == series).map_or(0, |(_, value)| value)
    }

    /// `clicks_total` of an outcome.
    pub fn clicks(&self, outcome: &str) -> u64 {
        self.value(&format!("smartlink_clicks_total{{outcome=\"{outcome}\"}}"))
    }

    /// The sum over all series of a family.
    pub fn sum(&self, family: &str) -> u64 {
        self.sum_of(family, "")
    }

    /// The sum over the series of a family that have this label: `outcome="offer"`.
    pub fn sum_of(&self, family: &str, label: &str) -> u64 {
        let ours = |name: &str| name.split('{').next() == Some(family) && name.contains(label);
        self.series().filter(|(name, _)| ours(name)).map(|(_, value)| value).sum()
    }

    pub fn generation(&self) -> u64 {
        self.value("smartlink_snapshot_generation")
    }

    /// Every series whose value is a whole number.
    fn series(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
    }
}
