//! One client's connection: request lines are made readable, hyper reads heads and writes answers, the worker decides in
//! between, and what hyper refuses by itself gets a sentence. A click is answered on the spot; a postback waits for the
//! ledger, and holds up its own connection alone.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::state::CloseReason;

use super::click;
use super::conversion::{Call, Postbacks};
use super::last_word::LastWord;
use super::reply::Reply;
use super::request_line::{HEAD_BYTES_MAX, RequestLines};
use super::worker::Worker;

/// How far the edge is on its way out.
///
/// A server that closes idle connections at once loses the requests that are on their way to it, and a client cannot
/// tell whether they were served. So the edge first says goodbye: whoever asks again is answered, and told not to ask
/// here any more. Only what stays silent is closed without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Connections are still accepted and answered; every answer is the last on its connection.
    LastAnswers,
    /// No connection is accepted, idle ones are closed; finish what has begun.
    Finishing,
    /// Close now.
    Closing,
}

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// From the beginning of the connection, or the end of an answer, to the end of the next head: waiting for its first
    /// byte and waiting for its last are one wait.
    pub header_read_timeout: Duration,
}

/// Serves a connection until either side is done, and says how it ended.
pub(super) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    worker: Rc<RefCell<Worker>>,
    postbacks: &Postbacks,
    options: &ConnectionOptions,
    mut phase: watch::Receiver<Phase>,
) -> CloseReason {
    let next_is_last = Cell::new(*phase.borrow_and_update() != Phase::Serving);
    let next_is_last = &next_is_last;
    let finish = move |mut reply: Reply| {
        if next_is_last.get() {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(reply)
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        if let Some(call) = Call::of_path(parts.uri.path()) {
            let answer = async move { finish(postbacks.answer(call, parts, body).await) };
            return Either::Right(Box::pin(answer));
        }
        // The borrow ends before anything is awaited: handle is a plain function.
        Either::Left(ready(finish(click::handle(&mut worker.borrow_mut(), &parts, peer))))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_read_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // Who has said all that it wants to say still listens.
        .half_close(true)
        .serve_connection(TokioIo::new(RequestLines::new(LastWord::new(stream))), service);
    let mut connection = pin!(connection);
    loop {
        let changed = tokio::select! {
            // What has already arrived is read before an idle connection is closed.
            biased;
            ended = connection.as_mut() => return reason(ended),
            changed = phase.changed() => changed,
        };
        match (changed, *phase.borrow_and_update()) {
            (Ok(()), Phase::Serving) => {}
            (Ok(()), Phase::LastAnswers) => next_is_last.set(true),
            (Ok(()), Phase::Finishing) => connection.as_mut().graceful_shutdown(),
            // The edge is gone, or gives up waiting.
            (Ok(()), Phase::Closing) | (Err(_), _) => return CloseReason::DrainDeadline,
        }
    }
}

fn reason(ended: Result<(), hyper::Error>) -> CloseReason {
    match ended {
        Ok(()) => CloseReason::Done,
        Err(error) if error.is_timeout() => CloseReason::HeaderTimeout,
        Err(error) if error.is_parse() => CloseReason::BadRequest,
        Err(_) => CloseReason::Broken,
    }
}
