//! The binary as a person runs it: in a directory of its own, with no variables but those that are given.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A directory to run in, removed at the end.
pub struct Desk {
    directory: tempfile::TempDir,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// A node that serves the demonstration network on ports of the system's choice. Killed when it is dropped.
#[allow(dead_code, reason = "not every test needs one")]
pub struct Node {
    child: Child,
    log: BufReader<ChildStderr>,
    pub admin: String,
}

#[allow(dead_code, reason = "each test file uses a part")]
impl Desk {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, and answers its name, which is how the binary is told of it.
    pub fn file<'a>(&self, name: &'a str, content: impl AsRef<[u8]>) -> &'a str {
        std::fs::write(self.path(name), content).unwrap();
        name
    }

    /// Runs to the end. A run that does not end is killed, and fails the test.
    pub fn run(&self, arguments: &[&str]) -> Told {
        self.run_with(&[], arguments)
    }

    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Told {
        self.run_to_the_end(variables, Stdio::null(), arguments)
    }

    /// With one of the desk's files as standard input.
    pub fn run_reading(&self, name: &str, arguments: &[&str]) -> Told {
        let input = std::fs::File::open(self.path(name)).unwrap();
        self.run_to_the_end(&[], input.into(), arguments)
    }

    fn run_to_the_end(&self, variables: &[(&str, &str)], stdin: Stdio, arguments: &[&str]) -> Told {
        let begun = Instant::now();
        let mut command = command(self.directory.path(), variables, arguments);
        let mut child = command.stdin(stdin).spawn().unwrap();
        let stdout = read_aside(child.stdout.take().unwrap());
        let stderr = read_aside(child.stderr.take().unwrap());
        let mut text = |of: &mpsc::Receiver<String>| {
            of.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                let _ = child.kill();
                let _ = child.wait();
                panic!("smartlink {arguments:?} did not end within {PATIENCE:?}")
            })
        };
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        Told { code: child.wait().unwrap().code(), stdout, stderr, took: begun.elapsed() }
    }

    /// Starts a node, and waits until it says that it routes.
    pub fn serve_demo(&self) -> Node {
        let arguments = ["serve", "--demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut child = command(self.directory.path(), &[], &arguments).spawn().unwrap();
        let mut node =
            Node { log: BufReader::new(child.stderr.take().unwrap()), child, admin: String::new() };
        let line = node.read_log_until("admin on http://");
        node.admin = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        node.read_log_until("published");
        node
    }
}

#[allow(dead_code, reason = "each test file uses a part")]
impl Node {
    /// The line of the log that says so. It ends the test if the log ends before.
    fn read_log_until(&mut self, said: &str) -> String {
        let mut log = String::new();
        loop {
            let start = log.len();
            let length = self.log.read_line(&mut log).unwrap();
            assert!(length > 0, "the node ended without saying {said:?}:\n{log}");
            if log[start..].contains(said) {
                return log[start..].to_owned();
            }
        }
    }

    /// Asks it to end, and answers its exit code and the rest of its log.
    pub fn terminate(mut self) -> (Option<i32>, String) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(dead_code, reason = "each test file uses a part")]
impl Told {
    /// The run failed at once, in one sentence, last on standard error, that says all of these; nothing was printed.
    #[track_caller]
    pub fn fails_saying(&self, said: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let ours: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("smartlink: ")).collect();
        assert_eq!(ours.len(), 1, "{}", self.stderr);
        assert_eq!(self.stderr.lines().last(), Some(ours[0]), "{}", self.stderr);
        for word in said {
            assert!(ours[0].contains(word), "{word:?} is not said: {}", ours[0]);
        }
        for (start, _) in ours[0].match_indices(": ") {
            let rest = &ours[0][start..];
            assert_eq!(ours[0].matches(rest).count(), 1, "told twice: {}", ours[0]);
        }
        assert!(self.took < SOON, "took {:?}", self.took);
    }
}

fn command(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smartlink"));
    command.args(arguments).current_dir(directory).env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (whole, read) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        // The test may be over.
        let _ = whole.send(text);
    });
    read
}

/// Far more than any of these runs takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mistake is told at once, even by a debug build on a busy machine; nobody waits for a timeout.
const SOON: Duration = Duration::from_secs(8);
