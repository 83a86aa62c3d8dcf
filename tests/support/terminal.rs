//! A small language for tests of the command line: a running node, and commands spoken to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A node on ports of the system's choice, in a directory of its own. Dropping it ends the process.
pub struct Node {
    process: Child,
    pub admin: String,
    pub directory: tempfile::TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Node {
    /// An empty network.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(further: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), further)
    }

    /// With what the data directory has already.
    pub fn start_in(directory: tempfile::TempDir, further: &[&str]) -> Self {
        let mut process = command()
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--threads", "1"])
            .arg("--data-dir")
            .arg(directory.path())
            .args(further)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut admin = None;
        // By then the key is in place, too.
        for line in lines.by_ref() {
            if let Some((_, address)) = line.unwrap().split_once("admin on ") {
                admin = Some(address.trim().trim_end_matches('/').to_owned());
                break;
            }
        }
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, admin: admin.expect("the node said no admin address"), directory }
    }

    /// Runs a command against the node.
    pub fn run(&self, arguments: &[&str]) -> Said {
        run(command()
            .args(arguments)
            .args(["--upstream", &self.admin, "--data-dir"])
            .arg(self.directory.path()))
    }

    /// What a command prints that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!((said.code, said.error.as_str()), (0, ""), "{arguments:?}: {said:?}");
        said.out
    }

    /// Asserts that a command fails with exit code 2 and one line that says all of these.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], words: &[&str]) {
        self.run(arguments).failed(words);
    }

    #[allow(dead_code, reason = "not every test file writes files")]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[allow(dead_code, reason = "not every test file needs the key")]
    pub fn key(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("api-key")).unwrap().trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Said {
    #[track_caller]
    pub fn failed(&self, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (2, ""), "{self:?}");
        assert_eq!(self.error.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.error.contains(word), "{:?} does not say {word:?}", self.error);
        }
    }
}

pub fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: status.code().unwrap(), out: text(stdout), error: text(stderr) }
}

/// The binary, in an environment without settings.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smartlink"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SMARTLINK_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").current_dir(empty_directory());
    command
}

/// Without a `smartlink-data` in it.
fn empty_directory() -> &'static Path {
    Path::new("/")
}
