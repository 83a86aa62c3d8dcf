//! Who is clicking: what a request's address and headers tell about the visitor.
//!
//! The room is pure: it reads no file, asks no clock, draws no number and logs nothing, so that the same request
//! always means the same visitor. What cannot be told is "unknown", never an error of the click.

mod device;

pub use device::{DeviceCache, Hints, device};
