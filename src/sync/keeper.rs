//! Writes the last good snapshot behind the live table: in order, and without keeping the next change from going live.
//!
//! A large network takes its disk seconds. What cannot be written, because the disk is full, stays in the queue, and is
//! tried again whenever [`Keeper::work`] is called.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cake::Network;

use super::last_good::{self, Block};

/// The owner of the last good file.
pub struct Keeper {
    path: Arc<Path>,
    queue: Arc<Mutex<Queue>>,
    /// Nothing is written before this is true: until then the file is another process's.
    may_write: Option<watch::Receiver<bool>>,
    /// The last thread that worked on the queue.
    working: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Of all changes since the last whole.
    changes_bytes: usize,
    is_worked_on: bool,
    /// A whole was given since the start.
    has_whole: bool,
}

enum Job {
    Whole { network: Box<Network>, hash: blake3::Hash },
    Changes(Block),
}

impl Keeper {
    pub fn new(path: PathBuf) -> Self {
        Self { path: path.into(), queue: Arc::default(), may_write: None, working: None }
    }

    /// Writes nothing before this is true.
    pub fn wait_for(&mut self, may_write: watch::Receiver<bool>) {
        self.may_write = Some(may_write);
    }

    /// Takes a canonical network with the hash of its bytes. Nothing that came before needs to be written any more.
    pub fn keep(&self, network: Box<Network>, hash: blake3::Hash) {
        let mut queue = lock(&self.queue);
        queue.jobs.clear();
        queue.changes_bytes = 0;
        queue.has_whole = true;
        queue.jobs.push_back(Job::Whole { network, hash });
    }

    /// Whether the changes may be appended. If not, the whole has to be given: so many changes wait for the disk, or have
    /// come since the whole, that a start would be slow; or the file was another process's, and may be of another state.
    pub fn has_room_for(&self, block: &Block) -> bool {
        let queue = lock(&self.queue);
        if self.may_write.is_some() && !queue.has_whole {
            return false;
        }
        queue.jobs.len() < JOBS_MAX && queue.changes_bytes + block.bytes() <= CHANGES_BYTES_MAX
    }

    /// Takes changes of what came last.
    pub fn append(&self, block: Block) {
        let mut queue = lock(&self.queue);
        queue.changes_bytes += block.bytes();
        queue.jobs.push_back(Job::Changes(block));
    }

    /// Begins to write what there is, unless that is under way.
    pub fn work(&mut self) {
        if self.may_write.as_ref().is_some_and(|may_write| !*may_write.borrow()) {
            return;
        }
        let mut queue = lock(&self.queue);
        if queue.is_worked_on || queue.jobs.is_empty() {
            return;
        }
        queue.is_worked_on = true;
        drop(queue);
        let (path, queue) = (Arc::clone(&self.path), Arc::clone(&self.queue));
        self.working = Some(tokio::task::spawn_blocking(move || work(&path, &queue)));
    }

    /// Waits until everything is written, or cannot be.
    pub async fn done(&mut self) {
        if let Some(working) = self.working.take()
            && working.await.is_err()
        {
            // It panicked, which standard error tells of; the next call may try again.
            lock(&self.queue).is_worked_on = false;
        }
    }
}

/// Writes one job after another, until there is none or one fails.
fn work(path: &Path, queue: &Mutex<Queue>) {
    loop {
        let mut waiting = lock(queue);
        let Some(job) = waiting.jobs.pop_front() else {
            waiting.is_worked_on = false;
            return;
        };
        drop(waiting);
        if let Err(error) = job.write(path) {
            tracing::error!(
                "cannot keep the last good snapshot in {}: {error}; it is tried again at the next refresh, and until \
                 then this node depends on its upstream after a restart",
                path.display()
            );
            let mut waiting = lock(queue);
            // A whole that came meanwhile makes this one needless.
            if !matches!(waiting.jobs.front(), Some(Job::Whole { .. })) {
                waiting.jobs.push_front(job);
            }
            waiting.is_worked_on = false;
            return;
        }
    }
}

impl Job {
    fn write(&self, path: &Path) -> io::Result<()> {
        match self {
            Job::Whole { network, hash } => last_good::write(path, network, hash),
            Job::Changes(block) => last_good::append(path, block),
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many changes as come while a large network is written.
const JOBS_MAX: usize = 256;

/// Read in a tenth of a second.
const CHANGES_BYTES_MAX: usize = 32 * 1024 * 1024;
