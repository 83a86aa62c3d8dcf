//! One client's connection. It begins with plain requests, which are read and answered without hyper (`plain.rs`). From the
//! first other one on, request lines are made readable, hyper reads heads and writes answers, the worker decides in between,
//! and what hyper refuses by itself gets a sentence. A click is answered on the spot; a postback waits for the ledger, and
//! holds up its own connection alone.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::Either;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::state::CloseReason;

use super::conversion::{Call, Postbacks};
use super::deadlines::{Watched, WatchedStream};
use super::last_word::LastWord;
use super::plain::{Left, Plain};
use super::reply::Reply;
use super::request_line::{Refusal, RequestLines};
use super::thread::{self, SharedPhase};

/// How far the edge is on its way out.
///
/// A server that closes idle connections at once loses the requests that are on their way to it, and a client cannot
/// tell whether they were served. So the edge first says goodbye: whoever asks again is answered, and told not to ask
/// here any more. Only what stays silent is closed without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    Serving,
    /// Another process accepts connections. Those that are open are answered once more.
    HandedOver,
    /// Connections are still accepted and answered; every answer is the last on its connection.
    LastAnswers,
    /// No connection is accepted, idle ones are closed; finish what has begun.
    Finishing,
    /// Close now.
    Closing,
}

/// Begins a TLS session, within the deadline of a head.
pub(super) async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watched: &Watched,
    phase: &SharedPhase,
) -> Result<TlsStream<TcpStream>, CloseReason> {
    let mut handshake = pin!(acceptor.accept(stream));
    let session = poll_fn(|context| {
        watched.is_polled_by(context);
        match (watched.is_overdue(), phase.get()) {
            (Some(reason), _) => Poll::Ready(Err(reason)),
            (None, Phase::Closing) => Poll::Ready(Err(CloseReason::DrainDeadline)),
            _ => handshake.as_mut().poll(context).map_err(|_| CloseReason::TlsHandshake),
        }
    })
    .await?;
    watched.awaits_a_head();
    Ok(session)
}

/// Serves a connection until either side is done, and says how it ended. It must be a task of its own: what wakes it is told
/// by its first turn.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut plain: Plain,
    peer: IpAddr,
    watched: Arc<Watched>,
    postbacks: &Postbacks,
    phase: &SharedPhase,
) -> CloseReason {
    let plain = poll_fn(|context| {
        watched.is_polled_by(context);
        plain.turn(&mut stream, context)
    });
    match plain.await {
        Left::Ended(reason) => reason,
        // On the heap, so that a connection without it has not to make room for it.
        Left::ForHyper(bytes) => {
            Box::pin(serve_by_hyper(stream, bytes, peer, watched, postbacks, phase)).await
        }
    }
}

/// The same for a connection that has ceased to be plain, with these bytes.
pub(super) async fn serve_by_hyper<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    bytes: Vec<u8>,
    peer: IpAddr,
    watched: Arc<Watched>,
    postbacks: &Postbacks,
    phase: &SharedPhase,
) -> CloseReason {
    let stream = WatchedStream::new(stream, Arc::clone(&watched));
    let answering = &*watched;
    let limits = thread::head_limits();
    let finish = |mut reply: Reply| {
        if answering.is_last_answer() || phase.get() != Phase::Serving {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(reply)
    };
    let service = service_fn(move |request: Request<Incoming>| {
        answering.is_being_answered();
        let (mut parts, body) = request.into_parts();
        if let Some(refusal) = refusal_of_target(&parts, limits.uri_bytes) {
            parts.uri = Uri::from_static(refusal.path());
        }
        if let Some(call) = Call::of_path(parts.uri.path()) {
            let answer = async move { finish(postbacks.answer(call, parts, body).await) };
            return Either::Right(Box::pin(answer));
        }
        let reply = thread::handle(&parts, peer);
        if reply.status() == StatusCode::URI_TOO_LONG {
            answering.had_too_long_a_target();
        }
        Either::Left(ready(finish(reply)))
    });
    let lines = RequestLines::after(LastWord::new(stream), &bytes, limits);
    drop(bytes);
    let connection = http1::Builder::new()
        .max_header_size(limits.bytes)
        .max_buf_size(limits.bytes.max(BUFFER_BYTES_LEAST))
        // Who has said all that it wants to say still listens.
        .half_close(true)
        .serve_connection(TokioIo::new(lines), service);
    let mut connection = pin!(connection);
    let mut is_finishing = false;
    poll_fn(|context| {
        watched.is_polled_by(context);
        // What has already arrived is read before an idle connection is closed.
        let ended = connection.as_mut().poll(context);
        if ended.is_pending()
            && let Some(reason) = watched.is_overdue()
        {
            return Poll::Ready(reason);
        }
        match phase.get() {
            _ if ended.is_ready() => {}
            Phase::Serving | Phase::HandedOver | Phase::LastAnswers => {}
            Phase::Finishing if is_finishing => {}
            Phase::Finishing => {
                is_finishing = true;
                connection.as_mut().graceful_shutdown();
                return connection.as_mut().poll(context).map(reason);
            }
            Phase::Closing => return Poll::Ready(CloseReason::DrainDeadline),
        }
        ended.map(reason)
    })
    .await
}

fn reason(ended: Result<(), hyper::Error>) -> CloseReason {
    match ended {
        Ok(()) => CloseReason::Done,
        Err(error) if error.is_parse_too_large() => CloseReason::HeadLimit,
        Err(error) if error.is_parse() => CloseReason::BadRequest,
        Err(_) => CloseReason::Broken,
    }
}

/// What hyper lets pass, and `RequestLines` too, because it knows no method, or has not looked any more since there was a body.
fn refusal_of_target(parts: &Parts, bytes_max: usize) -> Option<Refusal> {
    let uri = &parts.uri;
    if target_bytes(uri) > bytes_max {
        return Some(Refusal::TargetTooLong);
    }
    // RFC 9112, 3.2: an authority alone is for CONNECT, and an asterisk for OPTIONS. They are refused by their names.
    if matches!(parts.method, Method::CONNECT | Method::OPTIONS) {
        return None;
    }
    let is_in_form = match uri.scheme() {
        None => uri.path().starts_with('/'),
        // RFC 9110, 4.2.4: somebody in front of the host is an error.
        Some(scheme) => {
            (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        }
    };
    (!is_in_form).then_some(Refusal::TargetForm)
}

/// How long a target is, but for a fragment.
fn target_bytes(uri: &Uri) -> usize {
    let before_the_path = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => scheme.len() + "://".len() + authority.as_str().len(),
        (_, authority) => authority.map_or(0, |authority| authority.as_str().len()),
    };
    before_the_path + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// hyper takes no smaller buffer.
const BUFFER_BYTES_LEAST: usize = 8 * 1024;
