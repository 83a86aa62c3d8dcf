//! A request as the click path sees it, whoever has read it.

use http::request::Parts;
use http::{Method, Version};

use super::head::Head;

/// Its head; clicks have no body.
#[derive(Debug)]
pub struct Request<'r> {
    pub(super) method: &'r Method,
    /// As they stand on the request line.
    pub(super) path: &'r str,
    pub(super) query: Option<&'r str>,
    pub(super) version: Version,
    pub(super) head: Head<'r>,
}

/// As hyper has read it.
impl<'r> From<&'r Parts> for Request<'r> {
    fn from(parts: &'r Parts) -> Self {
        Self {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            version: parts.version,
            head: Head::read(&parts.headers),
        }
    }
}
