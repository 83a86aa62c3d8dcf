//! Hostile clients, failing parts and restarts, over the real program under load: one file for each kind of fault.
//!
//! Clicks come when they are due, whatever became of those before ([`load`]), and each redirect is held against what the network
//! said while the click was on its way ([`network`]). Asserted is what is right; how long it took is told, in a line for each
//! fault, and never asserted: the machine may be busy.
//!
//! ```sh
//! cargo test --test chaos -- --nocapture                        # some seconds for each fault
//! CHAOS=ci cargo test --test chaos -- --nocapture               # some minutes in all, as .ci/run has it
//! CHAOS=full cargo test --test chaos kills -- --nocapture       # docs/RELIABILITY.md has the figures of these
//! ```
//!
//! `SMARTLINK_CHAOS_PROGRAM` names another build of smartlink, `CHAOS_SEED` repeats what was drawn at random.

mod arrivals;
mod crowd;
mod descriptors;
mod drains;
mod kills;
mod load;
mod mutants;
mod network;
mod outages;
mod overload;
mod publishes;
mod readers;
mod run;
mod slow_heads;
mod soak;
mod takeovers;

#[path = "../support/mod.rs"]
mod support;
