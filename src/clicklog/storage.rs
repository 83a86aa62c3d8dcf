//! The files of the click log, kept by two threads beside the workers: one has the next segments ready, the other waits for
//! the disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::calendar::Calendar;
use super::files;
use super::mapped::Mapped;
use super::record::{AddressDetail, AddressKey, Lines};
use super::writer::{ClickLog, LINE_BYTES_MAX, Segment};

/// Where clicks are written, and for how long they are kept.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    pub directory: PathBuf,
    /// Of one segment. Each worker has two: the one that it writes to, and the next.
    pub segment_bytes: usize,
    /// How long a segment is written to before it is sealed, though it is not full.
    pub seal_after: Duration,
    /// A power failure costs the lines of this long, at most.
    pub sync_every: Duration,
    /// Sealed segments together; the oldest go first.
    pub keep_bytes: u64,
    /// Since a segment was sealed.
    pub keep_for: Duration,
    pub addresses: AddressDetail,
}

/// The click logs of all workers. Its threads end when the last [`ClickLog`] is dropped and all is sealed.
#[derive(Debug)]
pub struct ClickLogs {
    ended: Receiver<()>,
}

impl ClickLogs {
    /// Makes the directory, seals what an earlier process left, prepares the first segments, and gives each of `workers` its
    /// log. The key is that of hashed addresses; `node` is in the names of the files, so that those of several nodes and starts can lie beside each other. On a full
    /// disk it starts all the same: lines are dropped until there is room.
    pub fn start(
        options: StorageOptions,
        key: &AddressKey,
        node: &str,
        workers: usize,
    ) -> io::Result<(Self, Vec<ClickLog>)> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&options.directory)?;
        files::seal_left(&options.directory)?;
        let (done, handed_in) = mpsc::channel();
        let (archive, to_archive) = mpsc::channel();
        let (mut shares, mut logs) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (ready, spares) = mpsc::sync_channel(SEGMENTS_EACH);
            let lines = Lines::new(options.addresses, key);
            logs.push(ClickLog::new(lines, options.seal_after, spares, Sender::clone(&done)));
            shares.push(Share { ready, segments: 0 });
        }
        let next_number = files::next_number(&options.directory)?;
        let mut stock = Stock {
            directory: options.directory.clone(),
            segment_bytes: options.segment_bytes.max(LINE_BYTES_MAX),
            node: node.to_owned(),
            next_number,
            shares,
            archive,
            is_failing: false,
        };
        stock.fill();
        let (ends, ended) = mpsc::channel();
        thread::Builder::new().name("click-log".to_owned()).spawn(move || stock.keep(&handed_in))?;
        thread::Builder::new().name("click-log-disk".to_owned()).spawn(move || {
            Archive::new(options).keep(&to_archive);
            drop(ends);
        })?;
        Ok((Self { ended }, logs))
    }

    /// Waits until every log is sealed, but not for longer than this. Answers whether they are.
    pub fn finish(self, patience: Duration) -> bool {
        // Nothing is sent: the end of the sender is the news.
        matches!(self.ended.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

/// Sees to it that every worker has a segment in hand and another ready. Never waits for a sync.
struct Stock {
    directory: PathBuf,
    segment_bytes: usize,
    node: String,
    next_number: u64,
    shares: Vec<Share>,
    archive: Sender<News>,
    /// A segment could not be made when it was last tried, and somebody was told.
    is_failing: bool,
}

/// What one worker has.
struct Share {
    ready: SyncSender<Segment>,
    /// How many it has not handed in.
    segments: usize,
}

impl Stock {
    /// Until every worker has let go of its log.
    fn keep(mut self, handed_in: &Receiver<Segment>) {
        loop {
            match handed_in.recv_timeout(RETRY_AFTER) {
                Ok(segment) => self.take_back(segment),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.fill();
        }
    }

    fn fill(&mut self) {
        for worker in 0..self.shares.len() {
            while self.shares[worker].segments < SEGMENTS_EACH {
                let made = self.make(worker);
                self.tell(made.as_ref().err());
                let Ok(segment) = made else { return };
                let share = &mut self.shares[worker];
                share.segments += 1;
                if let Err(TrySendError::Full(segment) | TrySendError::Disconnected(segment)) =
                    share.ready.try_send(segment)
                {
                    // The worker has ended, and needs none any more.
                    self.take_back(segment);
                    break;
                }
            }
        }
    }

    fn make(&mut self, worker: usize) -> io::Result<Segment> {
        let path = files::live_path(&self.directory, self.next_number, &self.node);
        let file = files::create(&path)?;
        let mapped = preallocate(&file, self.segment_bytes as u64)
            .and_then(|()| Mapped::new(&file, self.segment_bytes))
            .inspect_err(|_| {
                // Nothing is in it, and the disk may need the room.
                let _ = fs::remove_file(&path);
            });
        let segment = Segment { worker, memory: mapped?, path };
        self.next_number += 1;
        // The archive lives for as long as this sender.
        let _ = self.archive.send(News::Opened(segment.path.clone(), file));
        Ok(segment)
    }

    fn take_back(&mut self, segment: Segment) {
        let Segment { worker, memory, path } = segment;
        let written = memory.written() as u64;
        // Before the file is cut.
        drop(memory);
        self.shares[worker].segments -= 1;
        let _ = self.archive.send(News::Done(path, written));
    }

    /// The first failure and the end of it.
    fn tell(&mut self, error: Option<&io::Error>) {
        match (error, self.is_failing) {
            (Some(error), false) => tracing::error!(
                "cannot make the next segment of the click log in {}: {error}; when those at hand are full, clicks are not \
                 recorded; make room",
                self.directory.display()
            ),
            (None, true) => tracing::info!("the click log has room again"),
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

/// What the archive hears of segments.
enum News {
    Opened(PathBuf, File),
    /// Nobody writes to it any more, and so many bytes of it are lines.
    Done(PathBuf, u64),
}

/// Does what waits for the disk: syncs, seals, deletes.
struct Archive {
    options: StorageOptions,
    live: HashMap<PathBuf, File>,
    /// Sealed since the last sync.
    sealed: Vec<File>,
    sync_at: Instant,
    calendar: Calendar,
}

impl Archive {
    fn new(options: StorageOptions) -> Self {
        let sync_at = Instant::now() + options.sync_every;
        let calendar = Calendar::new(SystemTime::now(), Instant::now());
        Self { options, live: HashMap::new(), sealed: Vec::new(), sync_at, calendar }
    }

    fn keep(mut self, news: &Receiver<News>) {
        self.delete_old();
        loop {
            match news.recv_timeout(self.sync_at.saturating_duration_since(Instant::now())) {
                Ok(News::Opened(path, file)) => drop(self.live.insert(path, file)),
                Ok(News::Done(path, written)) => self.seal(&path, written),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if Instant::now() >= self.sync_at {
                self.sync();
            }
        }
    }

    fn seal(&mut self, path: &Path, written: u64) {
        self.sealed.extend(self.live.remove(path).filter(|_| written > 0));
        if let Err(error) = files::seal(path, written) {
            let path = path.display();
            tracing::error!(
                "cannot seal {path} of the click log: {error}; it is tried again at the next start"
            );
        }
        self.delete_old();
    }

    /// Puts on the disk what came since the last time: what is mapped belongs to the file.
    fn sync(&mut self) {
        let directory = self.options.directory.display();
        for file in self.live.values().chain(&self.sealed) {
            if let Err(error) = file.sync_data() {
                tracing::error!("cannot sync the click log in {directory}: {error}");
            }
        }
        self.sealed.clear();
        self.sync_at = Instant::now() + self.options.sync_every;
    }

    fn delete_old(&mut self) {
        let Ok(sealed) = files::segments(&self.options.directory) else { return };
        let now = SystemTime::now();
        let is_believed = self.calendar.is_believed(now, Instant::now());
        let mut kept_bytes: u64 = 0;
        // The newest first: the oldest are those that have no room.
        for segment in sealed.iter().rev().filter(|segment| !segment.is_live) {
            kept_bytes = kept_bytes.saturating_add(segment.bytes);
            let age = now.duration_since(segment.changed_at).unwrap_or_default();
            let is_old = is_believed && age > self.options.keep_for;
            if kept_bytes <= self.options.keep_bytes && !is_old {
                continue;
            }
            let path = segment.path.display();
            match fs::remove_file(&segment.path) {
                Ok(()) => tracing::info!("deleted {path} of the click log, which keeps no more"),
                Err(error) => tracing::warn!("cannot delete {path} of the click log: {error}"),
            }
        }
    }
}

/// Gives every byte its place on the disk. Where the file system cannot do that at once, zeros are written.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let copied = io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut &*file)?;
    debug_assert_eq!(copied, bytes);
    file.sync_data()
}

/// The one that is written to, and the next.
const SEGMENTS_EACH: usize = 2;

/// A full disk is tried again so often.
const RETRY_AFTER: Duration = Duration::from_secs(1);
