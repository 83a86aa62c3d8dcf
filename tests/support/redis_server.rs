//! A Redis of the test's own, on a port of its own.
//!
//! Needs a `redis-server` in the path. Without one, `None` is started, and the test says that it is skipped; with
//! `SMARTLINK_NEED_REDIS`, it fails.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server of the test's own; it ends with it.
pub struct Server {
    pub port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    process: Child,
}

impl Server {
    /// `None`: there is none to start.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        for _ in 0..20 {
            // A cluster has a second port, 10,000 above.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if port > 55_000 {
                continue;
            }
            let directory = TempDir::new().unwrap();
            let process = spawn(port, &arguments, &directory);
            let mut server = Self { port, arguments: arguments.clone(), directory, process };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("no redis-server could be started");
    }

    /// Whether it comes up; another may have taken the port.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(text) = self.try_command(&["PING"])
                && text.contains("PONG")
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGSTOP, SIGCONT … by name.
    pub fn signal(&self, name: &str) {
        super::node::signal(self.process.id(), name);
    }

    pub fn start_again(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.process = spawn(self.port, &self.arguments, &self.directory);
            if self.answers() {
                return;
            }
            assert!(Instant::now() < deadline, "the server does not come up again");
        }
    }

    pub fn try_command(&self, words: &[&str]) -> redis::RedisResult<String> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_millis(500))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        if let Some(place) = self.arguments.iter().position(|word| word == "--requirepass") {
            redis::cmd("AUTH").arg(&self.arguments[place + 1]).exec(&mut connection)?;
        }
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer: redis::Value = command.query(&mut connection)?;
        Ok(match answer {
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            redis::Value::SimpleString(text) => text,
            other => format!("{other:?}"),
        })
    }

    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, arguments: &[String], directory: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
        .args(["--dir", directory.path().to_str().unwrap()])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("SMARTLINK_NEED_REDIS").is_none(), "there is no redis-server in the path");
        println!("skipped: there is no redis-server in the path");
    }
    found
}
