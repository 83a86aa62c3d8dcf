//! Who gets past: every request to `/console` comes through [`origin`], every page but the login through [`session`].
//!
//! Three doors, each for a way in that the others leave open:
//!
//! - `Host`, where there is no token: a site whose name was pointed at this machine's address (DNS rebinding) is of the
//!   same origin as itself, and its cookies are its own. It is told by the name ([`Hosts`](crate::state::Hosts)).
//! - `Origin` and `Sec-Fetch-Site` of what changes something: another site, or another port of this machine, may send a
//!   form here. The form's own token ([`Posted`](super::posted::Posted)) is asked for besides.
//! - the session: where there is a token, for every page; where there is none, for what changes something, which the API does not
//!   do without its key either.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use url::Url;

use super::posted::Fields;
use super::{Console, frame, login};
use crate::state::authority;

/// Who looks at a page. Every handler behind [`session`] may take it, as an `Extension`.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// What this visitor's forms say.
    pub csrf: String,
    /// There is a session to end.
    pub has_session: bool,
    /// What a form of theirs did, on the page to which it led.
    pub done: Option<String>,
}

/// Refuses what other sites sent, and marks every answer as one of the console.
pub async fn origin(State(console): State<Console>, request: Request, next: Next) -> Response {
    let answer = match refusal(&console, request.method(), request.headers()) {
        Some(problem) => (StatusCode::FORBIDDEN, format!("{problem}\n")).into_response(),
        None => next.run(request).await,
    };
    with_policy(answer)
}

/// Lets those in who have a session, or need none.
pub async fn session(State(console): State<Console>, mut request: Request, next: Next) -> Response {
    let of_session = login::cookie(&console, request.headers())
        // A key that cannot be read now changes nothing, and ends no session.
        .and_then(|cookie| Some((cookie, console.secret().ok()?.fingerprint())))
        .and_then(|(cookie, secret)| console.sessions().csrf(cookie, secret, console.uptime()))
        .map(|csrf| Visitor { csrf, has_session: true, done: None });
    let of_anybody = || Visitor { csrf: console.open_csrf().to_owned(), has_session: false, done: None };
    let visitor = of_session.or_else(|| (!console.has_token()).then(of_anybody));
    let Some(visitor) = visitor else {
        return to_the_login(&console, &request);
    };
    let done = Fields::read(request.uri().query().unwrap_or_default().as_bytes());
    let visitor = Visitor { done: console.notices().text(done.text("done")), ..visitor };
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Lets those change something who have a session: behind [`session`].
pub async fn changes(State(console): State<Console>, request: Request, next: Next) -> Response {
    let visitor = request.extensions().get::<Visitor>();
    if visitor.is_some_and(|visitor| visitor.has_session) {
        return next.run(request).await;
    }
    to_the_login(&console, &request)
}

fn to_the_login(console: &Console, request: &Request) -> Response {
    // A script is told; a person is shown where to log in, and comes back.
    if request.uri().path().ends_with(".json") {
        return (StatusCode::UNAUTHORIZED, "Log in first.\n").into_response();
    }
    if request.method() != Method::GET {
        return frame::told(
            console,
            StatusCode::UNAUTHORIZED,
            "You are not logged in",
            "The session has ended, and nothing was changed. Log in, open the page again, and send the form from there.",
        );
    }
    Redirect::to(&login::path_back_to(request.uri())).into_response()
}

/// Why a request is not looked at, if so.
fn refusal(console: &Console, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let parts = console.parts();
    if !console.has_token()
        && let Some(problem) = parts.hosts.refusal(headers)
    {
        return Some(problem);
    }
    let Some(authority) = authority(headers) else { return Some("The request names no host.") };
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
    {
        return Some("The form was sent by another site.");
    }
    // Without one it is no browser that could be made to send it.
    let origin = headers.get(header::ORIGIN)?;
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    let is_ours = origin.is_some_and(|origin| {
        // Behind a proxy the host may be another than the browser's.
        let is_known = origin.host().is_some_and(|host| parts.hosts.has(&host.to_owned()));
        is_known || same_authority(&origin, authority)
    });
    (!is_ours).then_some("The form was sent by another site.")
}

fn same_authority(origin: &Url, authority: &str) -> bool {
    // Read with the origin's scheme, so that a port left out is the same one.
    let asked = Url::parse(&format!("{}://{authority}/", origin.scheme()));
    asked.is_ok_and(|asked| {
        asked.host() == origin.host() && asked.port_or_known_default() == origin.port_or_known_default()
    })
}

fn with_policy(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Nothing to any other site. `no-referrer` would have browsers send our own forms with `Origin: null`.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // Pages tell of a network; only assets say otherwise.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_ours_by_host_and_port() {
        for (origin, host, ours) in [
            ("http://127.0.0.1:9180", "127.0.0.1:9180", true),
            ("https://console.example.com", "console.example.com", true),
            ("https://console.example.com", "console.example.com:443", true),
            ("http://127.0.0.1:9181", "127.0.0.1:9180", false),
            ("http://localhost:9180", "127.0.0.1:9180", false),
            ("http://[::1]:9180", "[::1]:9180", true),
            ("http://evil.example", "127.0.0.1:9180", false),
        ] {
            assert_eq!(same_authority(&Url::parse(origin).unwrap(), host), ours, "{origin} {host}");
        }
    }
}
