//! smartlink
pub mod backoffice;
pub mod cake;
pub mod routing;
pub mod types;
