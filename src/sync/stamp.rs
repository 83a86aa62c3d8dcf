//! What tells that a file is another one.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// Length, time of change, and on Unix the inode. `None`: there is no file.
pub(super) type Stamp = Option<(u64, Option<SystemTime>, u64)>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok(), inode(&metadata)))
}

/// Whether a file that has changed is still the same one, so that somebody has written to it.
pub(super) fn is_same_file(before: &Stamp, now: &Stamp) -> bool {
    matches!((before, now), (Some((_, _, before)), Some((_, _, now))) if before == now)
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}
