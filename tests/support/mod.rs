//! The small language of the end-to-end tests: a [`node::Node`] is the real program in a directory of its own, spoken
//! to in bytes ([`http`]), fed by a [`stub::Stub`] where its upstream must misbehave and by a [`cake::Cake`] where that
//! must be no more than CAKE publishes, and waited for by what can be seen of it ([`wait`]), never by the clock.

// Each test binary that includes this folder uses another part of it.
#![allow(dead_code)]

pub mod cake;
pub mod certificate;
pub mod disk;
pub mod http;
pub mod mmdb;
pub mod node;
pub mod prometheus;
pub mod redis_server;
pub mod store;
pub mod stub;
pub mod wait;
