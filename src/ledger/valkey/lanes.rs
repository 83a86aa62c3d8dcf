//! Calls that wait for replicas go together: one WAIT holds up everything behind it on its connection, so the calls that came
//! meanwhile are sent at once, with one WAIT for all of them.
//!
//! A lane is what can go in one pipeline: everything, to one server; what is of one slot, in a cluster. Whoever finds the lane
//! free sends for all that wait in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use redis::cluster_routing::Slot;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::oneshot;

/// What a script answered, and how many replicas have what it wrote.
pub(super) type Answer = RedisResult<(Value, usize)>;

#[derive(Default)]
pub(super) struct Lanes {
    lanes: Mutex<HashMap<Option<Slot>, Arc<Lane>>>,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<Vec<Waiting>>,
    /// Who sends holds it.
    turn: tokio::sync::Mutex<()>,
}

type Waiting = (Cmd, oneshot::Sender<Answer>);

impl Lanes {
    /// Sends the command, with others of its lane.
    pub async fn send<F>(&self, slot: Option<Slot>, command: Cmd, send: impl Fn(Vec<Cmd>) -> F) -> Answer
    where
        F: Future<Output = Vec<Answer>>,
    {
        let lane =
            Arc::clone(self.lanes.lock().unwrap_or_else(PoisonError::into_inner).entry(slot).or_default());
        let (answer, mut answered) = oneshot::channel();
        lane.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((command, answer));
        let _turn = tokio::select! {
            biased;
            answer = &mut answered => return answer.unwrap_or_else(|_| Err(given_up())),
            turn = lane.turn.lock() => turn,
        };
        loop {
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Closed) => return Err(given_up()),
                Err(oneshot::error::TryRecvError::Empty) => lane.send_next(&send).await,
            }
        }
    }
}

impl Lane {
    async fn send_next<F>(&self, send: impl Fn(Vec<Cmd>) -> F)
    where
        F: Future<Output = Vec<Answer>>,
    {
        let (commands, callers): (Vec<Cmd>, Vec<_>) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let together = waiting.len().min(TOGETHER_MAX);
            waiting.drain(..together).unzip()
        };
        // A caller that waits no longer has dropped the other end. One without an answer hears that there is none.
        for (caller, answer) in callers.into_iter().zip(send(commands).await) {
            let _ = caller.send(answer);
        }
    }
}

/// Whoever sent for this caller was stopped.
fn given_up() -> RedisError {
    (ErrorKind::Io, "the call that this one went with was given up").into()
}

/// The server answers nobody else meanwhile.
const TOGETHER_MAX: usize = 256;
