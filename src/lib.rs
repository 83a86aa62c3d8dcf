//! smartlink: the click-routing edge of affiliate networks that run on CAKE.
//!
//! An affiliate's one link, `/sl?id=301&aff_id=67890`, reaches a node. The node looks up where the visitor is and
//! what device they hold, decides on an immutable table, and answers 302 to the best offer, or to a fallback. The
//! table is compiled from a snapshot of the CAKE API and replaced whole.
//!
//! # Rooms and arrows
//!
//! The modules below stand on floors. An arrow goes from a higher floor to a lower one, never sideways between the
//! rooms of floor 3, never in a circle; `tests/architecture.rs` keeps it so.
//!
//! ```text
//! 6  main        parse, dispatch, exit code
//! 5  cli         serve · check · explain · link …  composes; knows all rooms
//! 4  config      what was typed → what it means → each room's options
//! 3  edge        a click in, a redirect out        the data plane; postbacks
//! 3  sync        keeps a node current              snapshot, geo databases, leases; carries conversions
//! 3  backoffice  the embedded CAKE                 its API over SQLite
//! 3  admin       metrics, health, explain, refresh
//! 3  console     pages for people                  reads state, writes through the upstream's API
//! 2  state       the meeting place                 live table, caps, live geo, counts, readiness
//! 2  cake        the CAKE API on the wire          items as serde types, the client
//! 2  ledger      who may spend how much of a cap   leases, windows, conversions
//! 2  clicklog    a line for every click            mapped segments
//! 1  routing     snapshot → table → decision       pure
//! 1  lookup      address → place, agent → device   pure
//! 1  click_id    what a click id says, and its MAC   pure
//! 0  types       ids, country, device, click       std only
//! ```
//!
//! *Pure* means: no async, no I/O, no clock, no random generator, no logging, no serde. The moment and the draw are
//! arguments, so a decision can be replayed from its record.
//!
//! # The path of a click
//!
//! ```text
//! edge::acceptor     accept, on the thread that will answer; its deadlines are looked at by a sweep
//! edge::proxy_protocol where the address is behind it, the header that says whose connection it is
//! edge::tls          where the address has it, a session
//! edge::plain        the head, if it is a GET that leaves nothing to wonder about, as nearly all are
//! edge::click        query → address → place → device → Click
//!                    → the live table and its caps, loaded once → routing::decide → charged to the caps
//!                    → click id, signed → destination → written down → counters → answer
//! edge::plain        the answer is written
//!
//! and from the first request on that is anything else, for the rest of the connection:
//!
//! edge::request_line bytes that a URI may not have are encoded, what cannot be mended is refused
//! edge::connection   hyper reads the head; edge::click as above, or a postback; hyper writes
//! ```
//!
//! [`edge::handle`] is a plain function, and allocates nothing. It waits for nothing, and a worker shares nothing that it writes,
//! but for the tokens of caps ([`state::CapCell`]): of those it takes one for each cap of the offer, or none. A click that comes
//! too late for one is decided again.
//!
//! # The path of a record
//!
//! ```text
//! edge::click        what came and what was decided → clicklog::ClickLog, before the answer
//! clicklog           a line, copied into a mapped segment: from then on it is the system's
//!                    → full, or old enough: traded for the one that is ready; without one, dropped and counted
//! clicklog::storage  beside the workers: preallocates, syncs, seals, deletes by age and size
//! ```
//!
//! # The path of a lease
//!
//! ```text
//! state::CapCell     a click takes a token; few are left, or one was missed: the keeper is called
//! sync::CapKeeper    four times a second and when called: what was spent, what is returned, what is wanted
//!                    → the ledger that is here, or behind the upstream's API; repeated word for word until answered
//! ledger             settled and granted, on the disk, each request once
//! sync::Leases       tokens of one window, with a deadline by the machine's uptime → the cell
//! ```
//!
//! # The path of a conversion
//!
//! ```text
//! edge::connection   a path that is a postback's goes another way than a click
//! edge::conversion   parameters → the click id's MAC and age → the desk; then it waits
//! ledger::desk       a bounded line; who finds it full is sent away, to come again
//! sync::conversions  all that wait → one batch → the ledger that is here, or behind the upstream's API
//! ledger             each written down once, counted into the caps of its offer, on the disk
//! edge::conversion   answered, and counted
//! ```
//!
//! # The path of a socket
//!
//! ```text
//! cli::supervisor    from systemd, which opened them and keeps them; or
//! cli::takeover      from the process that runs on the data directory to the next one, with the lock of the directory
//! edge::listener     the sockets that there are, and new ones for further addresses and, beside ours, threads
//! sync::CapKeeper    leases from the other process's ledger, until it has ended and the file is this one's
//! edge::acceptor     accepts no more as soon as the other does; each open connection has one more answer
//! ```
//!
//! # The path of a snapshot
//!
//! ```text
//! sync::refresh      tick with jitter, or asked; one owner, never two at once
//! sync::overlay      routing.toml → entries, rules and caps, where the upstream is a real CAKE and cannot list them
//! cake::client       pages of 500, bounded in bytes and time; from smartlink's own API all of it in one answer
//! cake::wire         JSON → items → routing::Snapshot, with a warning for each item left out
//! routing::compile   snapshot → table, total
//! state::live        publish, with the caps: one swap; readers finish on the old table
//! sync::last_good    temporary file, fsync, rename
//! ```
//!
//! The embedded API also tells which links have changed ([`cake::Update`]). They alone are read, compiled into a patch
//! over the table that is live ([`routing::LayeredTable`]), published by the same swap, and appended to the last good
//! snapshot: a change costs what it touches, and not what the network weighs.
//!
//! Nothing on this path can change the live table but the one swap, and nothing on the path of a click waits for it.

// One file has some, src/clicklog/mapped.rs, and says why it is sound.
#![deny(unsafe_code)]

// The vocabulary.
pub mod types;

// The pure heart.
pub mod click_id;
pub mod lookup;
pub mod routing;

// What the planes share.
pub mod cake;
pub mod clicklog;
pub mod ledger;
pub mod state;

// The planes.
pub mod admin;
pub mod backoffice;
pub mod console;
pub mod edge;
pub mod sync;

// What a person types.
pub mod cli;
pub mod config;
