//! smartlink
pub mod backoffice;
pub mod cake;
pub mod cli;
pub mod config;
pub mod edge;
pub mod lookup;
pub mod routing;
pub mod state;
pub mod sync;
pub mod types;
