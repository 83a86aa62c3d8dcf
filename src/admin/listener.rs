//! Accepts connections for the admin room. axum's own loop sets no deadline for the head of a request, so that whoever
//! sends half a head holds a connection for ever; this one does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// Serves until `until` ends; requests that have begun are finished. `header_read_timeout` is also how long a
/// connection may be idle. Of connections beyond a number, which leaves the clicks their descriptors, the system keeps those that
/// come until others have ended.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    header_read_timeout: Duration,
    until: impl Future<Output = ()> + Send,
) {
    let connections = GracefulShutdown::new();
    let mut until = std::pin::pin!(until);
    let room = Arc::new(Semaphore::new(connections_max()));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&room).acquire_owned() => place,
            () = &mut until => break,
        };
        // axum's accept outlives errors: it waits a moment where files have run out, and tries again.
        let (stream, peer) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut until => break,
        };
        let router = TowerToHyperService::new(router.clone());
        // Whoever counts who comes from where finds it with the request.
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.call(request)
        });
        // Who asks and does not read would be there for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(header_read_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_read_timeout)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the admin listener broke");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// An eighth of the descriptors; clicks take half of them.
fn connections_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 8).unwrap_or(CONNECTIONS_MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

const CONNECTIONS_MIN: usize = 8;

/// More than scrapers, edges that wait for changes, and people have.
const CONNECTIONS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use axum::routing::get;
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    fn start(header_read_timeout: Duration) -> (Runtime, TcpStream, oneshot::Sender<()>, JoinHandle<()>) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/long", get(|| async { "here".repeat(1 << 18) }));
        let serving = runtime.spawn(serve(listener, router, header_read_timeout, async {
            let _ = stopped.await;
        }));
        (runtime, stream, stop, serving)
    }

    #[test]
    fn half_a_head_is_not_waited_for() {
        let (_runtime, mut stream, _stop, _serving) = start(Duration::from_millis(20));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\nx-").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(!answer.contains("200"), "{answer}");
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (runtime, mut stream, stop, serving) = start(Duration::from_millis(200));
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        // Until its own side has no room any more, or has ended: answers to none of it are read.
        let request = b"GET /long HTTP/1.1\r\nhost: a.example\r\n\r\n".repeat(1000);
        while stream.write_all(&request).is_ok() {}
        stop.send(()).unwrap();
        runtime.block_on(serving).unwrap();
    }

    #[test]
    fn there_is_room_for_so_many_and_then_one_waits() {
        let (_runtime, first, _stop, _serving) = start(Duration::from_secs(3_600));
        let address = first.peer_addr().unwrap();
        let ask = |stream: &mut TcpStream| {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
        };
        let mut crowd: Vec<_> =
            (1..connections_max()).map(|_| TcpStream::connect(address).unwrap()).collect();
        crowd.push(first);
        for stream in &mut crowd {
            ask(stream);
            assert_eq!(stream.read(&mut [0; 15]).unwrap(), 15);
        }
        let mut late = TcpStream::connect(address).unwrap();
        ask(&mut late);
        late.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(late.read(&mut [0; 1]).is_err(), "it has to wait");
        crowd.pop();
        late.set_read_timeout(None).unwrap();
        assert_eq!(late.read(&mut [0; 15]).unwrap(), 15);
    }

    #[test]
    fn an_idle_connection_does_not_keep_the_listener() {
        let (runtime, mut stream, stop, serving) = start(Duration::from_secs(3_600));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stop.send(()).unwrap();
        runtime.block_on(serving).unwrap();
    }
}
