//! The tests play systemd: they listen where a node tells how it is, pass it sockets, and keep these open while it is restarted.

mod support;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use support::http::{Connection, Request};
use support::node::{Node, Setup, signal};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// The socket that a unit's processes tell how they are.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _directory: tempfile::TempDir,
}

/// What a process has told at once.
#[derive(Debug)]
struct Told(Vec<String>);

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), _directory: directory }
    }

    /// Of a unit without a watchdog.
    fn supervises(&self, setup: Setup) -> Setup {
        setup.variable("NOTIFY_SOCKET", &self.path)
    }

    fn next_within(&self, patience: Duration) -> Option<Told> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(count) => {
                let text = std::str::from_utf8(&bytes[..count]).unwrap();
                Some(Told(text.lines().map(str::to_owned).collect()))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message that has this in it; others are passed over.
    #[track_caller]
    fn wait_for(&self, word: &str) -> Told {
        let begun = Instant::now();
        while let Some(left) = wait::DEADLINE.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            if let Some(told) = self.next_within(left)
                && told.has(word)
            {
                return told;
            }
        }
        panic!("nobody has told {word:?}");
    }
}

impl Told {
    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|line| line == word || (word.ends_with('=') && line.starts_with(word)))
    }

    #[track_caller]
    fn value(&self, name: &str) -> &str {
        let value = self.0.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

#[test]
fn it_tells_that_it_is_ready_reloads_and_stops() {
    let manager = Manager::new();
    let mut node = manager.supervises(Setup::demo().setting("edge.goodbye_seconds = 0.1")).start();
    let ready = manager.wait_for("READY=1");
    assert_eq!(ready.value("STATUS"), "routing 1 links, generation 1", "{ready:?}");
    assert!(!ready.has("MAINPID="), "it is the main process: {ready:?}");
    assert_eq!(node.readyz(), 200);

    node.reload(&["edge.referrer_policy = \"origin\""]);
    let reloading = manager.wait_for("RELOADING=1");
    // In the same message, or systemd could not tell it from one that came before.
    assert!(reloading.value("MONOTONIC_USEC").parse::<u64>().unwrap() > 0, "{reloading:?}");
    assert!(!manager.wait_for("READY=1").has("STATUS="));

    node.reload(&["edge.referrer_policy = \"what\""]);
    manager.wait_for("RELOADING=1");
    let failed = manager.wait_for("READY=1");
    assert!(failed.value("STATUS").contains("edge.referrer_policy is \"what\""), "{failed:?}");

    node.signal("TERM");
    assert_eq!(manager.wait_for("STOPPING=1").value("STATUS"), "draining");
    assert_eq!(node.wait_for_exit().code(), Some(0));
}

#[test]
fn without_a_table_it_is_up_and_says_that_it_is_not_ready() {
    let (manager, gone) = (Manager::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let node = manager.supervises(Setup::of_upstream(&url, "k")).start();
    let ready = manager.wait_for("READY=1");
    assert_eq!(ready.value("STATUS"), "not ready: no table is live yet");
    assert_eq!(node.readyz(), 503);
}

#[test]
fn the_watchdog_hears_from_a_node_that_runs_and_not_from_one_that_hangs() {
    let manager = Manager::new();
    let setup = manager.supervises(Setup::demo()).variable("WATCHDOG_USEC", "600000");
    let node = setup.start_ready();
    manager.wait_for("READY=1");
    let begun = Instant::now();
    for _ in 0..4 {
        manager.wait_for("WATCHDOG=1");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "not oftener than at half of the time");
    node.pause();
    // What it has told before.
    while manager.next_within(Duration::from_millis(1)).is_some() {}
    assert!(manager.next_within(Duration::from_secs(1)).is_none(), "a node that is stopped tells nothing");
    node.signal("CONT");
    manager.wait_for("WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_hears_nothing() {
    let manager = Manager::new();
    let setup = manager.supervises(Setup::demo()).variable("WATCHDOG_USEC", "200000");
    let _node = setup.variable("WATCHDOG_PID", "1").start_ready();
    manager.wait_for("READY=1");
    while let Some(told) = manager.next_within(Duration::from_millis(600)) {
        assert!(!told.has("WATCHDOG=1"), "{told:?}");
    }
}

/// A process that a node has started, and not this test. Killed at the end.
struct Next(u32);

impl Drop for Next {
    fn drop(&mut self) {
        signal(self.0, "KILL");
    }
}

/// Has the node start the next process, waits until that is the main process, and until the node has ended.
#[track_caller]
fn take_over(node: &mut Node, manager: &Manager) -> Next {
    node.signal("USR2");
    // Of the process that is to be believed, and of the next one, in whatever order.
    let (one, other) = (manager.wait_for("MAINPID="), manager.wait_for("MAINPID="));
    let next = Next(one.value("MAINPID").parse().unwrap());
    assert_eq!(one.value("MAINPID"), other.value("MAINPID"));
    assert_ne!(next.0, node.id());
    let ready = if one.has("READY=1") { one } else { other };
    assert_eq!(ready.value("STATUS"), "routing 1 links, generation 1", "{ready:?}");
    node.wait_for_log(&["started process", &next.0.to_string()]);
    node.wait_for_log(&["drained; every answer"]);
    // The pipe of its log is the next one's, too.
    wait::until("the process before to have ended", || node.has_ended().then_some(()));
    next
}

#[test]
fn a_process_that_takes_over_is_the_main_process_then() {
    let manager = Manager::new();
    let setup = Setup::demo().setting("edge.goodbye_seconds = 0.1");
    let mut node = manager.supervises(setup).variable("WATCHDOG_USEC", "600000").start_ready();
    manager.wait_for("READY=1");
    let next = take_over(&mut node, &manager);
    assert_eq!(node.click(CLICK).status, 302);
    assert!(!node.logged(&["which was to take over, has ended"]), "{}", node.log());
    // It is the next one that is watched now, and a stop was never told.
    while manager.next_within(Duration::from_millis(1)).is_some() {}
    assert!(!manager.wait_for("WATCHDOG=1").has("STOPPING=1"));
    // And it can do the same.
    signal(next.0, "USR2");
    let after = Next(manager.wait_for("MAINPID=").value("MAINPID").parse().unwrap());
    assert_ne!(after.0, next.0);
    wait::until("the one after it to say so", || {
        node.log().contains(&format!("process {} has taken over", after.0)).then_some(())
    });
    assert_eq!(node.click(CLICK).status, 302);
}

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn no_connection_is_refused_while_a_node_with_passed_sockets_is_restarted() {
    let ((clicks, click_address), (admin, admin_address)) = (listening(), listening());
    let setup = Setup::demo()
        .setting("edge.threads = 2")
        .setting("edge.goodbye_seconds = 0.2")
        .on(click_address, admin_address);
    let mut node = setup.passing("clicks", &clicks).passing("admin", &admin).start_ready();
    assert_eq!((node.clicks, node.admin), (click_address, admin_address));
    node.wait_for_log(&["systemd has opened the socket on", &click_address.to_string()]);

    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            thread::spawn(move || {
                while !over.load(Relaxed) {
                    // One that is refused, reset or not answered ends the test.
                    let answer = Connection::to(click_address).ask(&Request::click(CLICK));
                    assert_eq!(answer.status, 302, "{answer:?}");
                    answered.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let more = |than: u64| wait::until("clicks", || (answered.load(Relaxed) > than + 100).then_some(()));
    for _ in 0..3 {
        more(answered.load(Relaxed));
        node.signal("TERM");
        assert_eq!(node.wait_for_exit().code(), Some(0), "{}", node.log());
        // Whoever comes now waits, and is not refused.
        let waiting = Connection::to(click_address);
        let setup = node.kill().passing("clicks", &clicks).passing("admin", &admin);
        node = setup.start_ready();
        assert_eq!({ waiting }.ask(&Request::click(CLICK)).status, 302);
    }
    more(answered.load(Relaxed));
    over.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    println!("{} clicks over three restarts", answered.load(Relaxed));
}

#[test]
fn passed_sockets_are_handed_over_too() {
    let ((clicks, click_address), (admin, admin_address)) = (listening(), listening());
    let manager = Manager::new();
    let setup = Setup::demo().setting("edge.threads = 2").setting("edge.goodbye_seconds = 0.1");
    let setup = setup.on(click_address, admin_address).passing("clicks", &clicks).passing("admin", &admin);
    let mut node = manager.supervises(setup).start_ready();
    manager.wait_for("READY=1");
    let next = take_over(&mut node, &manager);
    assert_eq!(node.click(CLICK).status, 302);
    drop(next);
    // They are still those of the test: nobody is refused, and nobody answers.
    let mut waiting = Connection::to(click_address);
    waiting.send(Request::click(CLICK).to_bytes()).unwrap();
    let node = node.kill().passing("clicks", &clicks).passing("admin", &admin).start_ready();
    assert_eq!(waiting.read().unwrap().status, 302);
    assert_eq!(node.click(CLICK).status, 302);
}

#[test]
fn sockets_that_do_not_fit_are_refused_in_words() {
    let (clicks, address) = listening();
    let elsewhere = "127.0.0.1:0".parse().unwrap();
    let mut node = Setup::demo()
        .on("127.0.0.2:0".parse().unwrap(), elsewhere)
        .passing("clicks", &clicks)
        .start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    let said = [&format!("there is a socket for {address}")[..], "not among the addresses"];
    node.wait_for_log(&said);

    let (udp, directory) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let mut node = Setup::demo().passing("clicks", &udp).start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));
    assert!(
        node.logged(&["smartlink: systemd has passed something that is no TCP socket"]),
        "{}",
        node.log()
    );
    let unix = std::os::unix::net::UnixListener::bind(directory.path().join("unix")).unwrap();
    let mut node = Setup::demo().passing("clicks", &unix).start_and_fail();
    assert_eq!(node.wait_for_exit().code(), Some(2));

    // Those of another process are none of its business: it binds its own.
    let node = Setup::demo().variable("LISTEN_PID", "1").variable("LISTEN_FDS", "5").start_ready();
    assert_eq!(node.click(CLICK).status, 302);
}
