//! What became of the snapshot: what was published, what changed, what was left out, what was refused. As long as this
//! process remembers.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;

use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::{Console, show};
use crate::routing::Warning;
use crate::state::{Change, Event, RefreshResult, now};

#[derive(Template)]
#[template(path = "snapshots.html")]
struct Snapshots {
    frame: Frame,
    confirmed: String,
    /// The last refresh was taken, and nothing is left out.
    is_well: bool,
    refused_now: Option<String>,
    failed_now: Option<String>,
    /// What is left out of the live table.
    quarantined: Vec<Warning>,
    quarantined_count: usize,
    rows: Vec<Row>,
}

struct Row {
    at: String,
    times: String,
    class: &'static str,
    word: &'static str,
    generation: u64,
    snapshot: String,
    what: String,
    links: Vec<u32>,
    links_more: usize,
    size: String,
    quarantined: usize,
    problem: String,
}

/// `GET /console/snapshots`
pub async fn page(State(console): State<Console>, Extension(visitor): Extension<Visitor>) -> Response {
    frame::in_turn(&console, move |console| write(console, &visitor)).await
}

fn write(console: &Console, visitor: &Visitor) -> Response {
    let events = console.parts().journal.events();
    let (now, confirmed) = (now(), console.parts().table.confirmed_at());
    let present = console.parts().journal.present();
    let problem = |result| {
        let present = present.as_ref().filter(|present| present.result == result);
        present.and_then(|present| present.problem.clone())
    };
    let rows = events.iter().enumerate().map(|(index, event)| row(event, events.get(index + 1))).collect();
    frame::page(&Snapshots {
        frame: Frame::new(console, visitor, Section::Snapshots, "Snapshots"),
        confirmed: if confirmed.0 == 0 { "not yet".to_owned() } else { show::ago(confirmed, now) },
        is_well: present
            .as_ref()
            .is_some_and(|present| present.problem.is_none() && present.quarantined == 0),
        refused_now: problem(RefreshResult::Refused),
        failed_now: problem(RefreshResult::Failed),
        quarantined_count: present.as_ref().map_or(0, |present| present.quarantined),
        quarantined: present.map_or_else(Vec::new, |present| present.warnings),
        rows,
    })
}

fn row(event: &Event, before: Option<&Event>) -> Row {
    let (class, word) = match event.result {
        RefreshResult::Published | RefreshResult::Unchanged => ("well", "published"),
        RefreshResult::Refused => ("ill", "refused"),
        RefreshResult::Failed => ("note", "failed"),
    };
    let what = match &event.change {
        Some(Change::Remembered) => "the last good snapshot, from the disk".to_owned(),
        Some(Change::Whole) => "the whole network".to_owned(),
        Some(Change::Links { count: 1, .. }) => "one link".to_owned(),
        Some(Change::Links { count, .. }) => format!("{} links", show::count(*count as u64)),
        Some(Change::Caps) => "caps alone".to_owned(),
        None => String::new(),
    };
    let links = match &event.change {
        Some(Change::Links { first, .. }) => first.iter().map(|link| link.value()).collect(),
        _ => Vec::new(),
    };
    let count = match &event.change {
        Some(Change::Links { count, .. }) => *count,
        _ => 0,
    };
    let delta = |now: usize, then: Option<usize>| match then.map(|then| now as i64 - then as i64) {
        None | Some(0) => show::count(now as u64),
        Some(more) => format!("{} ({more:+})", show::count(now as u64)),
    };
    let then = |read: fn(&Event) -> usize| before.map(read);
    Row {
        at: show::moment(event.at),
        times: match event.times {
            1 => String::new(),
            times => format!("{} times since {}", show::count(times), show::moment(event.first_at)),
        },
        class,
        word,
        generation: event.generation,
        snapshot: event.snapshot.clone(),
        what,
        links_more: count.saturating_sub(links.len()),
        links,
        size: match event.change {
            Some(_) => format!(
                "{} links, {} entries, {} offers, {} caps",
                delta(event.links, then(|event| event.links)),
                delta(event.entries, then(|event| event.entries)),
                delta(event.offers, then(|event| event.offers)),
                delta(event.caps, then(|event| event.caps)),
            ),
            None => String::new(),
        },
        quarantined: event.quarantined,
        problem: event.problem.clone().unwrap_or_default(),
    }
}
