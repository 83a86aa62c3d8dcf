//! What passes between the process and whoever supervises it, in the way of systemd: sockets that were opened for it, and what it
//! tells of itself (sd_notify(3)).
//!
//! The watchdog is told that all is well only while it is: at half of its time, each click thread must have answered since the time
//! before, and so must the threads beside them. A node that hangs says nothing, and is started anew.
//!
//! Where nobody supervises it in this way, the variables are not set, nothing is told, and nothing is looked at.

use std::env;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until, timeout};

use super::in_one_line;
use crate::edge::Pulse;
use crate::state::{LiveTable, Readiness};

/// Sockets that listen already, and stay open when the process ends.
#[derive(Debug, Default)]
pub struct PassedSockets {
    pub clicks: Vec<TcpListener>,
    pub admin: Vec<TcpListener>,
}

impl PassedSockets {
    /// Those that systemd has opened for this process. Before any thread is begun, because it clears variables.
    pub fn take() -> anyhow::Result<Self> {
        let mut passed = Self::default();
        let is_ours = |process: String| process.parse() == Ok(std::process::id());
        if !env::var("LISTEN_PID").is_ok_and(is_ours) {
            // A process before this one has left the variables; there are no such descriptors.
            return Ok(passed);
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        for nth in 0..sockets.len() {
            let socket = sockets.take_tcp_listener(nth);
            let socket = socket.context("systemd has passed something that is no TCP socket")?;
            let of_name = if names.next() == Some(ADMIN) { &mut passed.admin } else { &mut passed.clicks };
            of_name.extend(socket);
        }
        ensure!(passed.admin.len() < 2, "systemd has passed two sockets by the name {ADMIN}; one is enough");
        Ok(passed)
    }
}

/// Whoever is told how the process is.
#[derive(Clone, Copy, Debug)]
pub struct Supervisor {
    is_there: bool,
    /// In which it must be told that all is well.
    watchdog: Option<Duration>,
}

impl Supervisor {
    pub fn from_environment() -> Self {
        let is_there = env::var_os("NOTIFY_SOCKET").is_some();
        Self { is_there, watchdog: sd_notify::watchdog_enabled().filter(|_| is_there) }
    }

    /// SIGHUP came, and is heeded.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!("the clock cannot be read, and systemd is not told of the reload: {error}")
            }
        }
    }

    /// It was heeded, whatever came of it: there is no word for one that failed.
    pub fn reloaded(self, problem: Option<&anyhow::Error>) {
        let failed =
            problem.map(|problem| format!("the configuration before is in use: {}", in_one_line(problem)));
        match &failed {
            Some(failed) => self.tell(&[NotifyState::Ready, NotifyState::Status(failed)]),
            None => self.tell(&[NotifyState::Ready]),
        }
    }

    pub fn stopping(self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// Another process is the one to watch from now on. It says the same, but perhaps may not be heard before.
    pub fn taken_over(self, process: u32) {
        self.tell(&[NotifyState::MainPid(process)]);
    }

    /// Tells that it serves, as soon as it routes or has tried for a while, and then how it is, for as long as it is well.
    ///
    /// `has_taken_over`: it is not the process that was started for the unit.
    pub async fn watch(self, live: &LiveTable, readiness: &Readiness, pulse: &Pulse, has_taken_over: bool) {
        if !self.is_there {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        while !readiness.is_ready() && begun.elapsed() < READY_PATIENCE {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let mut status = self::status(live, readiness);
        let main = NotifyState::MainPid(std::process::id());
        // The process before may have been about to say that it is well.
        let ready = [NotifyState::Ready, NotifyState::Watchdog, NotifyState::Status(&status), main];
        self.tell(if has_taken_over { &ready } else { &ready[..3] });

        let every = self.watchdog.map_or(STATUS_EVERY, |watchdog| watchdog / 2);
        let mut next = Instant::now() + every;
        let mut was_well = true;
        loop {
            pulse.ask();
            sleep_until(next).await;
            let now = self::status(live, readiness);
            if now != status {
                status = now;
                self.tell(&[NotifyState::Status(&status)]);
            }
            if self.watchdog.is_some() {
                let silent = self.silent(pulse, every).await;
                match (silent.is_empty(), was_well) {
                    (true, false) => tracing::warn!("every thread answers again"),
                    (false, true) => tracing::error!(
                        "{} does not answer; while that is so, systemd is not told that the node is well, and ends it",
                        silent.join(" and ")
                    ),
                    _ => {}
                }
                was_well = silent.is_empty();
                if was_well {
                    self.tell(&[NotifyState::Watchdog]);
                }
            }
            // One that could not run for a while does not make up for it. Who did not answer may a moment later, and the next look
            // would be too late for systemd.
            next = if was_well {
                (next + every).max(Instant::now() + every / 2)
            } else {
                Instant::now() + every / 8
            };
        }
    }

    /// Who does not answer.
    async fn silent(self, pulse: &Pulse, patience: Duration) -> Vec<String> {
        let mut silent = pulse.silent();
        // This is the main thread; the others of the control plane take what is spawned.
        if timeout(patience / 2, tokio::spawn(async {})).await.is_err() {
            silent.push("the control plane".to_owned());
        }
        silent
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!("systemd cannot be told how the node is: {error}");
        }
    }
}

/// In a few words, for `systemctl status`.
fn status(live: &LiveTable, readiness: &Readiness) -> String {
    if let Some(reason) = readiness.unready_because() {
        return format!("not ready: {reason}");
    }
    let live = live.current();
    format!("routing {} links, generation {}", live.table.links(), live.generation)
}

/// The name (`FileDescriptorName=`) of the socket of the admin listener; all others are for clicks.
const ADMIN: &str = "admin";

/// A node whose upstream is away at its first start routes nothing, and is no better if it is started again.
const READY_PATIENCE: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where there is no watchdog.
const STATUS_EVERY: Duration = Duration::from_secs(10);
