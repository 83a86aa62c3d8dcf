//! How the next process takes over from the one that runs, on the same data directory, without a connection refused or reset:
//! it is given the listening sockets themselves, with the clicks that wait in their queues.
//!
//! ```text
//! the next one                          the one that runs
//!   connects to takeover.sock      →
//!                                  ←    smartlink 1 <process> <sockets>\n
//!                                  ←    the lock of the data directory, the admin socket, those for clicks: one a message
//!   reads its configuration, loads the geo databases, compiles the last good snapshot, asks for a newer one
//!   accepts clicks; <process>\n     →
//!                                       accepts no more; drains; its counts are reported; ends
//!   has the ledger and the API     ←    the end of the stream
//! ```
//!
//! Until the next process has said that it serves, it may end at any moment, and the one that runs goes on as if nothing had been. If
//! the one that runs is killed, the next one has all that it needs. It asks the other's API for links and leases, as any node
//! would, until the files of the API and of the ledger are its own. Where the other has a ledger and no API, because its upstream is
//! a real CAKE, there is nobody to ask so long: capped offers are closed on the next one, and postbacks are answered 503.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::sync::{oneshot, watch};

use crate::edge::ClickSockets;

/// A data directory that is this process's.
pub struct Claim {
    /// Whoever has it open has the directory.
    pub lock: File,
    /// From the process that had it, if that one still runs.
    pub inherited: Option<Inherited>,
}

/// What another process leaves to this one.
pub struct Inherited {
    pub clicks: Vec<TcpListener>,
    pub admin: TcpListener,
    pub predecessor: Predecessor,
}

/// The process that this one takes over from.
pub struct Predecessor {
    pub process: u32,
    stream: UnixStream,
    /// True as soon as it has ended.
    pub ended: watch::Receiver<bool>,
}

/// What a process has to leave to the next one.
pub struct Estate {
    pub lock: File,
    pub admin: OwnedFd,
    pub clicks: ClickSockets,
}

/// Keeps a second node out of the data directory: two would take turns in overwriting the last good snapshot. The system lets go
/// of the lock when the processes that have it end, however they end. `takes_over`: where a process has it, it is asked to leave
/// it to this one.
pub fn claim(data_dir: &Path, takes_over: bool) -> anyhow::Result<Claim> {
    let path = data_dir.join(LOCK_FILE);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + OFFER_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Claim { lock: file, inherited: None }),
            Err(fs::TryLockError::WouldBlock) if !takes_over => bail!(
                "another smartlink uses the data directory {}; stop it, choose another --data-dir, or take over from it \
                 with --takeover",
                data_dir.display()
            ),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // A process that has just started, or taken over itself, makes its offer in a moment.
        let inherited = match UnixStream::connect(data_dir.join(SOCKET_FILE)) {
            Ok(stream) => inherit(stream),
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Err(error.into())
            }
            Err(_) if Instant::now() < deadline => {
                thread::sleep(ASK_AGAIN);
                continue;
            }
            Err(_) => Err(anyhow::anyhow!("it has offered nothing for {} s", OFFER_PATIENCE.as_secs())),
        };
        return inherited.with_context(|| {
            format!(
                "cannot take over from the process that uses the data directory {}, which goes on",
                data_dir.display()
            )
        });
    }
}

fn inherit(mut stream: UnixStream) -> anyhow::Result<Claim> {
    stream.set_read_timeout(Some(GREETING_PATIENCE))?;
    let told = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow::anyhow!("it says nothing; perhaps another process is about to take over from it")
        }
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => anyhow::anyhow!("it is ending"),
        _ => anyhow::Error::from(error),
    };
    let greeting = read_line(&mut stream).map_err(told)?;
    let (process, sockets) = parse_greeting(&greeting)
        .with_context(|| format!("it says {greeting:?}; is it another version of smartlink?"))?;
    let lock = receive(&stream).map_err(told)?.into();
    let admin = receive(&stream).map_err(told)?.into();
    let clicks = (0..sockets).map(|_| Ok(receive(&stream)?.into()));
    let clicks = clicks.collect::<io::Result<_>>().map_err(told)?;
    stream.set_read_timeout(None)?;
    let (tell, ended) = watch::channel(false);
    let mut reader = stream.try_clone()?;
    thread::Builder::new().name("predecessor".to_owned()).spawn(move || {
        // It says nothing more. A stream that breaks is one that ended.
        let _ = io::copy(&mut reader, &mut io::sink());
        tell.send_replace(true);
    })?;
    let predecessor = Predecessor { process, stream, ended };
    Ok(Claim { lock, inherited: Some(Inherited { clicks, admin, predecessor }) })
}

impl Predecessor {
    /// Tells it that this process accepts clicks. One that has ended meanwhile need not be told.
    pub fn we_serve(&mut self) {
        let _ = writeln!(self.stream, "{}", std::process::id());
    }
}

/// Starts the program that is now under the name by which this process was started, with the same arguments, to take over from
/// this one. Where the process is supervised, the next one is thereby, too: it is a child of this one.
///
/// Not from a thread that yields to clicks: all threads of the next process would do the same.
pub fn start_next() -> anyhow::Result<u32> {
    let mut arguments = env::args_os();
    let program = arguments.next().context("this process does not know its own name")?;
    let mut command = Command::new(program);
    command.args(arguments.filter(|argument| argument != FLAG)).arg(FLAG);
    // They are about this process.
    for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    let mut child = command.spawn().context("cannot start the next process")?;
    let process = child.id();
    thread::Builder::new().name("next".to_owned()).spawn(move || {
        // While this process lives, the other ends only if it could not take over.
        if let Ok(status) = child.wait() {
            tracing::warn!("process {process}, which was to take over, has ended: {status}");
        }
    })?;
    Ok(process)
}

/// Leaves all this to the next process, whenever one asks for it and then serves: then `taken` is told its process id.
pub fn offer(data_dir: &Path, estate: Estate, taken: oneshot::Sender<u32>) -> io::Result<()> {
    let path = data_dir.join(SOCKET_FILE);
    // That of an earlier process; the lock says that none listens on it.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // Whoever may connect may take all clicks.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    // It waits for what may never come, and ends with the process.
    thread::Builder::new().name("takeover".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            match stream.and_then(|stream| leave(stream, &estate)) {
                Ok(process) => {
                    // Where nobody listens, the process is ending already.
                    let _ = taken.send(process);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => tracing::warn!(
                    "a process that was to take over from this one has ended before it took clicks; its log says why; this \
                     one goes on"
                ),
                Err(error) => {
                    tracing::warn!("a process could not take over from this one, which goes on: {error}");
                    // Where descriptors have run out, at once would only spin.
                    thread::sleep(ACCEPT_BACKOFF);
                }
            }
        }
    })?;
    Ok(())
}

/// To one process. Answers its id, once it serves.
fn leave(mut stream: UnixStream, estate: &Estate) -> io::Result<u32> {
    stream.set_write_timeout(Some(GREETING_PATIENCE))?;
    let clicks = estate.clicks.open();
    if clicks.is_empty() {
        return Err(io::Error::other("it is ending"));
    }
    writeln!(stream, "{MAGIC} {} {}", std::process::id(), clicks.len())?;
    send(&stream, estate.lock.as_fd())?;
    send(&stream, estate.admin.as_fd())?;
    for socket in &clicks {
        send(&stream, socket.as_fd())?;
    }
    // Not while another process prepares itself: this one may be told to end meanwhile.
    drop(clicks);
    tracing::info!("a process is about to take over from this one");
    // For as long as it takes: that process would take the end of the stream for the end of this one.
    let process = read_line(&mut stream)?;
    // It ends with the process, which is what the other waits for.
    std::mem::forget(stream);
    process.parse().map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("it says {process:?}")))
}

fn parse_greeting(line: &str) -> Option<(u32, usize)> {
    let (process, sockets) = line.strip_prefix(MAGIC)?.trim_start().split_once(' ')?;
    Some((process.parse().ok()?, sockets.parse().ok()?))
}

/// A short line, and no byte behind it.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(line),
            byte if line.len() < LINE_BYTES_MAX => line.push(byte.into()),
            _ => return Err(io::Error::new(ErrorKind::InvalidData, "it says more than a line")),
        }
    }
}

/// A descriptor, beside one byte: a message must not be empty.
fn send(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    let descriptors = [descriptor];
    let is_pushed = beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(is_pushed, "there is room for one");
    sendmsg(stream, &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let descriptor = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| {
        io::Error::new(
            ErrorKind::InvalidData,
            "a socket is missing; is there room for more files (ulimit -n)?",
        )
    })
}

/// What tells a process to take over.
const FLAG: &str = "--takeover";

/// In the data directory: locked while a node uses it.
const LOCK_FILE: &str = "lock";

/// In the data directory: where the next process asks.
const SOCKET_FILE: &str = "takeover.sock";

/// And the version of what is said.
const MAGIC: &str = "smartlink 1";

const LINE_BYTES_MAX: usize = 80;

/// How long a process may take from the lock of its directory to its offer: it may be draining one that it took over from.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);

const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A process that is well answers at once.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

const ACCEPT_BACKOFF: Duration = Duration::from_secs(1);
