//! What a form sent. [`Posted`] is a form of a page of ours: whoever takes it as an argument has had its token checked.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::Response;

use super::guard::Visitor;
use super::{Console, frame, session};

/// The fields of a form, whoever sent it. Of two of the same name, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

/// The fields of a form that came from a page of this visitor.
pub struct Posted(pub Fields);

impl Fields {
    /// Reads `a=b&c=d`, as browsers encode it.
    pub fn read(bytes: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// What was typed; empty if there is no such field.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }

    /// What was typed or chosen under this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Every field, in the order in which they came.
    pub fn each(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether a box was ticked.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }
}

impl FromRequest<Console> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Response> {
        let refuse = |status, why: &str| frame::told(console, status, "The form could not be read", why);
        match tokio::time::timeout(READ_TIMEOUT, Bytes::from_request(request, console)).await {
            Ok(Ok(bytes)) => Ok(Self::read(&bytes)),
            Ok(Err(rejection)) => Err(refuse(rejection.status(), &rejection.body_text())),
            Err(_) => {
                let why = format!("It did not arrive within {} seconds.", READ_TIMEOUT.as_secs());
                Err(refuse(StatusCode::REQUEST_TIMEOUT, &why))
            }
        }
    }
}

impl FromRequest<Console> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Extension::<Visitor>::from_request_parts(&mut parts, console).await.ok();
        let fields = Fields::from_request(Request::from_parts(parts, body), console).await?;
        let is_theirs =
            visitor.is_some_and(|Extension(visitor)| session::is_same(fields.text(CSRF), &visitor.csrf));
        if is_theirs {
            return Ok(Self(fields));
        }
        Err(frame::told(
            console,
            StatusCode::FORBIDDEN,
            "The form is not of this session",
            "It was sent from a page that is older than your login, or by somebody else. Nothing was changed. Open the \
             page again, and send the form from there.",
        ))
    }
}

/// The field in which a form says whose it is.
const CSRF: &str = "csrf";

/// A form that comes a byte a minute holds a connection for nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a form; the longest holds the conditions of a rule.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_browsers_encode_them() {
        let fields = Fields::read(b"name=Caf%C3%A9+%26+Bar&day=mon&day=tue&empty=&odd=%zz");
        assert_eq!((fields.text("name"), fields.text("none")), ("Café & Bar", ""));
        assert_eq!(fields.text("day"), "mon");
        assert!(fields.is_set("empty") && !fields.is_set("none"));
        assert_eq!(fields.text("odd"), "%zz");
    }
}
