//! Click ids: what is in one, how it is spelled, and the keyed MAC at its end. The edge makes them, and whoever takes a
//! postback verifies them, so they are below both. Pure: the identity of a node, the moment and the keys are arguments.
//!
//! # Layout
//!
//! 37 bytes, big-endian, in unpadded base64url (RFC 4648, section 5): 50 characters of `[A-Za-z0-9_-]`, as many as CAKE's
//! `s1` holds. 50 characters have room for four bits more than 37 bytes; those must be zero, so that an id has one
//! spelling.
//!
//! | byte | bits | field | unit |
//! | --- | --- | --- | --- |
//! | 0 | 4 | version | 1 |
//! | 0 | 44 | moment of the click | milliseconds since 1970-01-01T00:00:00Z, up to the year 2527 |
//! | 6 | 48 | node | drawn at random when a process starts |
//! | 12 | 10 | worker | which thread of the process, from 0 |
//! | 13 | 30 | sequence | clicks of that thread, from 0 |
//! | 17 | 32 | link | CAKE's `smart_link_id` |
//! | 21 | 32 | affiliate | CAKE's `affiliate_id` |
//! | 25 | 32 | offer | CAKE's `offer_id`; 0 if the click went to no offer |
//! | 29 | 64 | MAC | SipHash-2-4 over bytes 0 to 28 |
//!
//! # Uniqueness
//!
//! It does not hang on the clock. A thread counts its clicks and repeats no sequence; when 2³⁰ are used up it goes on as
//! the next node. Threads of a process differ in the worker, processes (other nodes, and the same node after a restart) in
//! the node. So a clock that stands still or steps back changes a field that uniqueness does not need.
//!
//! What is left is chance: two processes draw the same node with 2⁻⁴⁸. Of 1,000 nodes any two are alike with
//! 2·10⁻⁹, of a million starts with 2·10⁻³; and an id comes twice only if two that are alike also meet in millisecond,
//! worker, sequence, link, affiliate and offer.
//!
//! # The MAC
//!
//! SipHash-2-4 was made as a MAC for short messages: 128 bits of key, 64 bits of tag. Its key is derived from the 256
//! bits of a line of the key file. Who does not know the key has no better way than to guess the tag: one in 2⁶⁴ for each
//! id that is tried, half that while two keys are valid, which at 100,000 tries a second all year long is 3·10⁻⁷.
//! Verifying takes the same time whatever is wrong with the tag. An id is signed, not secret: anybody who sees one can
//! read its fields.

mod contents;
mod keys;

pub use contents::{
    ClickId, Contents, Malformed, NodeIdentity, SEQUENCES, VERSION, WORKERS_MAX, WorkerIndex,
};
pub use keys::{ClickIdKeys, KeyTextError, Refused, Signer};
