//! A Prometheus of the test's own, on a port that the system chose.
//!
//! Needs `prometheus` and `promtool` in the path. Without them, the test says that it is skipped; with
//! `SMARTLINK_NEED_PROMETHEUS`, it fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::wait::{self, DEADLINE};

/// A server of the test's own; it ends with it.
pub struct Server {
    address: SocketAddr,
    process: Child,
}

impl Server {
    /// By this configuration, with its data beside it.
    pub fn start(configuration: &Path) -> Self {
        let data = configuration.with_file_name("prometheus-data");
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, said) = (process.stderr.take().unwrap(), mpsc::channel());
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody listens any more, once the address is known.
                let _ = said.0.send(line);
            }
        });
        let mut log = String::new();
        let address = loop {
            let Ok(line) = said.1.recv_timeout(DEADLINE) else {
                panic!("prometheus does not say where it listens:\n{log}");
            };
            // The order of the fields differs from version to version.
            if line.contains("msg=\"Listening on\"")
                && let Some((_, address)) = line.split_once(" address=")
            {
                break address.split(' ').next().unwrap_or_default().parse().unwrap();
            }
            log += &(line + "\n");
        };
        let server = Self { address, process };
        wait::until("prometheus to be ready", || server.get("/-/ready").0.contains(" 200 ").then_some(()));
        server
    }

    /// What a query comes to now: an array of series, each with its `value`.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(expression)));
        match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().unwrap().clone(),
            other => panic!("{expression} is a {other:?}, and no vector"),
        }
    }

    /// The `data` of an answer.
    #[track_caller]
    pub fn ask(&self, target: &str) -> Value {
        let (status, body) = self.get(target);
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{target}: {status} {body}"));
        assert_eq!(body["status"], "success", "{target}: {body}");
        body["data"].clone()
    }

    /// The status line, and the body.
    fn get(&self, target: &str) -> (String, String) {
        let mut stream = TcpStream::connect_timeout(&self.address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // Of version 1.0, so that the answer comes in one piece and ends with the connection.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{target}: {answer}"));
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As a part of a query string.
pub fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Whether there are both programs.
pub fn is_installed() -> bool {
    let is_there = |name| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok();
    let found = is_there("prometheus") && is_there("promtool");
    if !found {
        assert!(
            std::env::var_os("SMARTLINK_NEED_PROMETHEUS").is_none(),
            "there is no prometheus or no promtool in the path"
        );
        println!("skipped: there is no prometheus or no promtool in the path");
    }
    found
}
