//! A worker's end of the click log: appends, and trades a segment that is full for the next one.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::mapped::Mapped;
use super::record::{Lines, Record, TEXT_BYTES_MAX};
use crate::types::{SUB_BYTES_MAX, SUBS};

/// A file that one worker appends to.
#[derive(Debug)]
pub(super) struct Segment {
    pub worker: usize,
    pub memory: Mapped,
    pub path: PathBuf,
}

/// There was no segment to write to: the disk is full, or slower than clicks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the click log has no room")]
pub struct Dropped;

/// Where one worker writes its clicks down.
#[derive(Debug)]
pub struct ClickLog {
    live: Option<Segment>,
    /// When the first line was written to it.
    begun_at: Option<Instant>,
    seal_after: Duration,
    /// The storage keeps one ready.
    spares: Receiver<Segment>,
    /// Takes back what is full. It has room for more than there are segments.
    done: Sender<Segment>,
    lines: Lines,
    line: Vec<u8>,
}

impl ClickLog {
    pub(super) fn new(
        lines: Lines,
        seal_after: Duration,
        spares: Receiver<Segment>,
        done: Sender<Segment>,
    ) -> Self {
        Self { live: None, begun_at: None, seal_after, spares, done, lines, line: Vec::with_capacity(2048) }
    }

    /// Whether the next line surely has room, whatever is in it.
    pub fn has_room(&mut self) -> bool {
        let has_room = |segment: &Segment| segment.memory.room() >= LINE_BYTES_MAX;
        self.live.as_ref().is_some_and(has_room) || self.trade()
    }

    /// Writes a click down. When this returns, the line survives the end of the process.
    pub fn append(&mut self, record: &Record<'_>) -> Result<(), Dropped> {
        self.line.clear();
        self.lines.write(record, &mut self.line);
        if self.live.as_mut().is_some_and(|segment| segment.memory.append(&self.line)) {
            return Ok(());
        }
        let begins =
            self.trade() && self.live.as_mut().is_some_and(|segment| segment.memory.append(&self.line));
        if begins { Ok(()) } else { Err(Dropped) }
    }

    /// Hands in a segment that has been written to for long enough. To be called about once a second.
    pub fn keep_up(&mut self, now: Instant) {
        let is_written_to = self.live.as_ref().is_some_and(|segment| segment.memory.written() > 0);
        if !is_written_to {
            self.begun_at = None;
            return;
        }
        let begun_at = *self.begun_at.get_or_insert(now);
        if now.saturating_duration_since(begun_at) >= self.seal_after {
            // Without another one it goes on: old is better than lost.
            self.trade();
        }
    }

    /// Takes the next segment in place of this one, if there is one.
    fn trade(&mut self) -> bool {
        let Ok(next) = self.spares.try_recv() else { return false };
        self.begun_at = None;
        if let Some(old) = self.live.replace(next) {
            self.hand_in(old);
        }
        true
    }

    fn hand_in(&self, segment: Segment) {
        // Where the storage has ended, the file keeps what is in it, and is sealed at the next start.
        let _ = self.done.send(segment);
    }
}

impl Drop for ClickLog {
    fn drop(&mut self) {
        for segment in self.live.take().into_iter().chain(self.spares.try_iter()) {
            self.hand_in(segment);
        }
    }
}

/// Two texts and five sub ids, each byte of them escaped as six, and what stands between them.
pub(super) const LINE_BYTES_MAX: usize = 6 * (2 * TEXT_BYTES_MAX + SUBS * SUB_BYTES_MAX) + 2048;
