//! Shows how much room there is where the node keeps its data (`filesystem_avail_bytes`). What is done about it is the click
//! log's business, and an operator's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::state::{Metrics, Room};

/// Looks every few seconds, until it is dropped. The names are those of the `directory` label.
pub async fn watch_disks(directories: Vec<(&'static str, PathBuf)>, metrics: Arc<Metrics>) {
    loop {
        for (name, directory) in &directories {
            let directory = directory.clone();
            // A network's file system may not answer for a long time.
            let room = tokio::task::spawn_blocking(move || room(&directory)).await;
            metrics.room_is(name, room.ok().flatten());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn room(directory: &Path) -> Option<Room> {
    let told = rustix::fs::statvfs(directory).ok()?;
    Some(Room {
        avail_bytes: told.f_bavail.saturating_mul(told.f_frsize),
        size_bytes: told.f_blocks.saturating_mul(told.f_frsize),
    })
}

/// More often than anybody scrapes.
const EVERY: Duration = Duration::from_secs(5);
