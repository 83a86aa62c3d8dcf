//! The console in a real browser: Debian's chromium, headless. What it says is in tests/console.rs; here is what only a
//! browser shows: that nothing is complained of, that charts are drawn, that the keyboard reaches everything, that what
//! is live moves.
//!
//! `SMARTLINK_SCREENSHOTS=DIR cargo test --test browser` keeps pictures of every page.

mod driver;
mod forms;
mod pages;
#[path = "../support/mod.rs"]
mod support;
