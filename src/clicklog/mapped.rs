//! A preallocated file, mapped for one writer. The one file of the crate with `unsafe`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{MmapMut, MmapOptions};

/// The memory of a segment's file, and how much of it is written.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapMut,
    written: usize,
}

impl Mapped {
    /// Maps the first `bytes` of a file of which every byte has its place on the disk: a store to a page that the disk has no
    /// room for would end the process by SIGBUS. The file must be this process's own.
    pub(super) fn new(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: memory that is mapped must not change under a reference to it, nor vanish. The storage made this file itself,
        // under a name that was free, in a directory that one process at a time has locked; it preallocated all `bytes`, and
        // truncates it only after this value is dropped. Readers open it for reading alone. The only references are made in
        // `append`, of the part that nothing has been written to, and do not outlive it.
        let map = unsafe { MmapOptions::new().len(bytes).map_mut(file)? };
        Ok(Self { map, written: 0 })
    }

    /// Whether the line had room and is written.
    pub(super) fn append(&mut self, line: &[u8]) -> bool {
        let Some(room) = self.map.get_mut(self.written..self.written + line.len()) else { return false };
        room.copy_from_slice(line);
        self.written += line.len();
        true
    }

    pub(super) fn room(&self) -> usize {
        self.map.len() - self.written
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }
}
