//! The log of `serve`: where it goes, in which form, and from which level on.
//!
//! To standard error, so that standard output stays free, or into a file, which SIGUSR1 has opened anew after it was renamed. A
//! line is one line in either form: lines for people by [`one_line::fields`], lines of JSON by [`one_line::JsonLine`].

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::one_line::{self, JsonLine};
use super::repeats::{LeftOutTold, Repeats};
use crate::config::{LogFormat, LogLevel, LogOptions};

/// The log of this process, from its start to the end of the value.
pub struct Logging {
    /// Last words, when it goes.
    _left_out: LeftOutTold,
    control: LogControl,
    is_json: bool,
}

/// What may be changed while it is written.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    /// `None` where it goes to standard error.
    file: Option<Arc<LogFile>>,
}

/// Where lines go.
#[derive(Clone)]
enum Sink {
    StandardError,
    File(Arc<LogFile>),
}

/// A file that is appended to, and may be opened anew under its name.
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl Logging {
    /// From here on, whatever the process says is told so.
    pub fn start(options: &LogOptions) -> anyhow::Result<Self> {
        let file = options.file.as_deref().map(LogFile::open).transpose()?.map(Arc::new);
        let sink = file.clone().map_or(Sink::StandardError, Sink::File);
        let (filter, problem) = filter(options.level);
        let (filter, handle) = reload::Layer::new(filter);
        let (repeats, left_out) = Repeats::new();
        let registry = tracing_subscriber::registry().with(filter).with(repeats);
        let lines = fmt::layer().with_target(false);
        let lines = match options.format {
            LogFormat::Pretty => lines
                .with_ansi(file.is_none() && io::stderr().is_terminal())
                .fmt_fields(one_line::fields())
                .with_writer(move || sink.clone())
                .boxed(),
            LogFormat::Json => fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(move || JsonLine(sink.clone()))
                .boxed(),
        };
        registry.with(lines).init();
        left_out.at_intervals();
        log_panics();
        if let Some(problem) = problem {
            tracing::warn!("{problem}");
        }
        let is_json = options.format == LogFormat::Json;
        Ok(Self { _left_out: left_out, control: LogControl { filter: handle, file }, is_json })
    }

    pub fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// Why the process ends. Answers whether a person at a terminal is still to be told, as of every command.
    pub fn last_words(&self, error: &anyhow::Error) -> bool {
        let is_file = self.control.file.is_some();
        if is_file || self.is_json {
            tracing::error!("{}", super::in_one_line(error));
        }
        is_file || !self.is_json
    }
}

impl LogControl {
    /// From the next line on.
    pub fn change_level(&self, level: LogLevel) {
        // What RUST_LOG says wins, now as at the start; if it is not understood, that was told.
        let (filter, _) = filter(level);
        // It fails when there is no log any more.
        let _ = self.filter.reload(filter);
    }

    /// Opens the file anew at each SIGUSR1, for as long as the process runs. It must be called within a runtime.
    pub fn reopen_when_told(self) -> anyhow::Result<()> {
        let mut told = signal(SignalKind::user_defined1()).context("cannot listen for signals")?;
        tokio::spawn(async move {
            while told.recv().await.is_some() {
                self.reopen();
            }
        });
        Ok(())
    }

    fn reopen(&self) {
        let Some(file) = &self.file else {
            tracing::info!(
                "SIGUSR1: the log goes to standard error, so that there is no file to open anew (log.file)"
            );
            return;
        };
        match file.reopen() {
            Ok(()) => tracing::info!("SIGUSR1: the log goes on in {}", file.path.display()),
            // Into the one that is open.
            Err(error) => {
                tracing::error!("SIGUSR1: {}; the log goes on in the old file", super::in_one_line(&error))
            }
        }
    }
}

/// What is told, and what is wrong with what was said of it. What this program has to say, in detail; of what it is built on, no
/// more than what is important to somebody.
fn filter(level: LogLevel) -> (EnvFilter, Option<String>) {
    let by_level = || {
        EnvFilter::new(match level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "info,smartlink=debug",
            LogLevel::Trace => "info,smartlink=trace",
        })
    };
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    if wanted.is_empty() {
        return (by_level(), None);
    }
    match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let problem = format!(
                "{} is {wanted:?}, which is not understood ({error}); log.level is used",
                EnvFilter::DEFAULT_ENV
            );
            (by_level(), Some(problem))
        }
    }
}

/// A panic is a line of the log as any other. Who wants to see more has RUST_BACKTRACE, as ever.
fn log_panics() {
    let in_detail = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        let message = panic.payload_as_str().unwrap_or("without a message");
        tracing::error!("the thread {thread} panicked{place}: {message}");
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            in_detail(panic);
        }
    }));
}

impl LogFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Mutex::new(append_to(path)?) })
    }

    fn reopen(&self) -> anyhow::Result<()> {
        let file = append_to(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open the log {}", path.display()))
}

/// Called with whole lines.
impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Sink::StandardError => io::stderr().write_all(line)?,
            Sink::File(log) => {
                log.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)?;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
