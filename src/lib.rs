//! smartlink
pub mod cake;
pub mod routing;
pub mod types;
