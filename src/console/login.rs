//! Logging in, with the admin token or, where there is none, with the API's key; and out.

use std::net::{IpAddr, SocketAddr};

use askama::Template;
use axum::Extension;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::{self, Frame};
use super::posted::{Fields, Posted};
use super::{Console, session};
use crate::state::Login;

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
        refused(&console, address, Login::Limited);
        let mut answer = show(&console, StatusCode::TOO_MANY_REQUESTS, next, Some(problem));
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return answer;
    }
    let given = fields.text("token").trim().as_bytes();
    let problem = if console.has_token() { WRONG_TOKEN } else { WRONG_KEY };
    let secret = match console.secret() {
        Ok(secret) => secret,
        Err(error) => {
            console.parts().metrics.console_login(Login::Failed);
            tracing::error!(%error, "nobody can log in to the console");
            return show(&console, StatusCode::SERVICE_UNAVAILABLE, next, Some(error.to_string()));
        }
    };
    if !secret.matches(given) {
        console.attempts().failed(address, now);
        refused(&console, address, Login::Refused);
        return show(&console, StatusCode::UNAUTHORIZED, next, Some(problem.to_owned()));
    }
    let Some(cookie) = console.sessions().begin(secret.fingerprint(), now) else {
        console.parts().metrics.console_login(Login::Failed);
        let problem = Some("The system has no randomness to begin a session with.".to_owned());
        return show(&console, StatusCode::SERVICE_UNAVAILABLE, next, problem);
    };
    console.parts().metrics.console_login(Login::Accepted);
    let set = set_cookie(&console, &cookie, session::AGE_MAX.as_secs(), is_over_tls(&headers));
    let to = if is_ours(&next) { next.as_str() } else { frame::HOME };
    ([(header::SET_COOKIE, set)], Redirect::to(to)).into_response()
}

/// `POST /console/logout`
pub async fn logout(State(console): State<Console>, headers: HeaderMap, _: Posted) -> Response {
    if let Some(cookie) = cookie(&console, &headers) {
        console.sessions().end(cookie);
    }
    let set = set_cookie(&console, "", 0, is_over_tls(&headers));
    ([(header::SET_COOKIE, set)], Redirect::to(LOGIN)).into_response()
}

/// Counts it, and says so in the log: not each time, so that who guesses does not fill the disk.
fn refused(console: &Console, address: IpAddr, outcome: Login) {
    console.parts().metrics.console_login(outcome);
    let what = if console.has_token() { "the admin token" } else { "the API's key" };
    let why = match outcome {
        Login::Limited => "too many wrong ones came from there",
        _ => "what was given is not it",
    };
    match console.attempts().to_tell(console.uptime()) {
        None => {}
        Some(0) => tracing::warn!("a login to the console by {what} was refused to {address}: {why}"),
        Some(untold) => tracing::warn!(
            "a login to the console by {what} was refused to {address}: {why}; {untold} more, of any address, since this was said \
             last"
        ),
    }
}

/// What the session's cookie says.
pub fn cookie<'a>(console: &Console, headers: &'a HeaderMap) -> Option<&'a str> {
    find_cookie(headers, &cookie_name(console.parts().port))
}

/// Browsers tell hosts apart by their cookies, and not ports: of two nodes on one host, the one whose name were the same would
/// end the other's session.
fn cookie_name(port: u16) -> String {
    format!("smartlink_console_{port}")
}

fn find_cookie<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie).map(|(_, value)| value)
}

/// The login that leads back to a page.
pub fn path_back_to(uri: &Uri) -> String {
    let target = uri.path_and_query().map_or(frame::HOME, |target| target.as_str());
    let next: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    format!("{LOGIN}?next={next}")
}

fn show(console: &Console, status: StatusCode, next: String, problem: Option<String>) -> Response {
    let frame = Frame::bare(console, "Log in");
    let key_is_in = (!console.has_token()).then(|| console.parts().key.to_string());
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

fn set_cookie(console: &Console, value: &str, seconds: u64, secure: bool) -> String {
    spell_cookie(&cookie_name(console.parts().port), value, seconds, secure)
}

fn spell_cookie(name: &str, value: &str, seconds: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

const WRONG_TOKEN: &str = "This is not the admin token. It is in the file that admin.token_file names, or in the variable \
                           SMARTLINK_ADMIN_TOKEN.";

const WRONG_KEY: &str = "This is not the key of the API.";

const LOGIN: &str = "/console/login";

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
        let name = cookie_name(9180);
        assert_eq!(find_cookie(&headers, &name), None);
        // Of a node on another port of this host.
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; smartlink_console_9181=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=d; smartlink_console_9180=xyz; e=f"));
        assert_eq!(find_cookie(&headers, &name), Some("xyz"));
    }

    #[test]
    fn the_cookie_is_as_closed_as_it_can_be() {
        let set = spell_cookie("smartlink_console_1", "x", 9, false);
        assert_eq!(set, "smartlink_console_1=x; Path=/console; Max-Age=9; HttpOnly; SameSite=Strict");
        assert!(spell_cookie("smartlink_console_1", "x", 9, true).ends_with("; Secure"));
    }
}
