//! Logging in, with the admin token or, where there is none, with the API's key; and out.

use std::net::SocketAddr;

use askama::Template;
use axum::Extension;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::{self, Frame};
use super::posted::{Fields, Posted};
use super::{Console, Parts, session};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    /// Where to go from here.
    next: String,
    problem: Option<String>,
    /// Where the API's key is, if it is asked for, and not the token.
    key_is_in: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    next: String,
}

/// `GET /console/login`
pub async fn page(State(console): State<Console>, Query(asked): Query<Asked>) -> Response {
    show(&console, StatusCode::OK, asked.next, None)
}

/// `POST /console/login`. There is no session yet that could have a form's token: another site is told by its origin,
/// and could do no more than log somebody in by a token that it has.
pub async fn login(
    State(console): State<Console>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    fields: Fields,
) -> Response {
    let next = fields.text("next").to_owned();
    let now = console.uptime();
    let address = peer.map(|Extension(ConnectInfo(peer))| peer.ip());
    // Without a peer there is nobody to tell apart: all are one.
    let address = address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let wait = console.attempts().wait(address, now);
    if !wait.is_zero() {
        let seconds = wait.as_secs() + 1;
        let problem =
            format!("Too many wrong tokens came from your address. Try again in {seconds} seconds.");
        let mut answer = show(&console, StatusCode::TOO_MANY_REQUESTS, next, Some(problem));
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return answer;
    }
    let given = fields.text("token").trim().as_bytes();
    let (is_right, problem) = match &console.parts().token {
        Some(token) => (token.matches(given), WRONG_TOKEN),
        None => match console.parts().key.read() {
            Ok(key) => (key.matches(given), WRONG_KEY),
            Err(error) => {
                return show(&console, StatusCode::SERVICE_UNAVAILABLE, next, Some(error.to_string()));
            }
        },
    };
    if !is_right {
        console.attempts().failed(address, now);
        return show(&console, StatusCode::UNAUTHORIZED, next, Some(problem.to_owned()));
    }
    let Some(cookie) = console.sessions().begin(now) else {
        let problem = Some("The system has no randomness to begin a session with.".to_owned());
        return show(&console, StatusCode::SERVICE_UNAVAILABLE, next, problem);
    };
    let set = set_cookie(&cookie, session::AGE_MAX.as_secs(), is_over_tls(&headers));
    let to = if is_ours(&next) { next.as_str() } else { frame::HOME };
    ([(header::SET_COOKIE, set)], Redirect::to(to)).into_response()
}

/// `POST /console/logout`
pub async fn logout(State(console): State<Console>, headers: HeaderMap, _: Posted) -> Response {
    if let Some(cookie) = cookie(&headers) {
        console.sessions().end(cookie);
    }
    let set = set_cookie("", 0, is_over_tls(&headers));
    ([(header::SET_COOKIE, set)], Redirect::to(LOGIN)).into_response()
}

/// What the session's cookie says.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// The login that leads back to a page.
pub fn path_back_to(uri: &Uri) -> String {
    let target = uri.path_and_query().map_or(frame::HOME, |target| target.as_str());
    let next: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    format!("{LOGIN}?next={next}")
}

fn show(console: &Console, status: StatusCode, next: String, problem: Option<String>) -> Response {
    let frame = Frame::bare(console, "Log in");
    let Parts { token, key, .. } = console.parts();
    let key_is_in = token.is_none().then(|| key.to_string());
    frame::page_with(status, &LoginPage { frame, next, problem, key_is_in })
}

/// A path of the console, and nothing that a browser could take for another site.
fn is_ours(next: &str) -> bool {
    next.starts_with("/console/") && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// As the browser says of itself: the listener has no TLS of its own, but a proxy in front of it may.
fn is_over_tls(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

fn set_cookie(value: &str, seconds: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

const WRONG_TOKEN: &str = "This is not the admin token. It is in the file that admin.token_file names, or in the variable \
                           SMARTLINK_ADMIN_TOKEN.";

const WRONG_KEY: &str = "This is not the key of the API.";

const LOGIN: &str = "/console/login";

const COOKIE: &str = "smartlink_console";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for ours in ["/console/", "/console/links?q=a%20b"] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            "/",
            "//evil.example/console/",
            "https://evil.example/console/",
            "/console/\\x",
            "/console/\r\nx",
        ] {
            assert!(!is_ours(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; smartlink_console_x=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=d; smartlink_console=xyz; e=f"));
        assert_eq!(cookie(&headers), Some("xyz"));
    }

    #[test]
    fn the_cookie_is_as_closed_as_it_can_be() {
        let set = set_cookie("x", 9, false);
        assert_eq!(set, "smartlink_console=x; Path=/console; Max-Age=9; HttpOnly; SameSite=Strict");
        assert!(set_cookie("x", 9, true).ends_with("; Secure"));
    }
}
