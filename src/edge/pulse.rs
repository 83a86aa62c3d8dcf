//! Whether the threads that take clicks still get round to anything: they are asked, and each answers in its turn. One that hangs,
//! or has ended, does not. A thread that nobody asks has nothing to do for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

/// Asks the threads of an edge.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// The number of the last question.
    question: watch::Sender<u64>,
    /// Of each thread, the number of the last one that it has answered.
    answers: Arc<[AtomicU64]>,
}

/// A thread's own part.
pub(super) struct Heart {
    question: watch::Receiver<u64>,
    answers: Arc<[AtomicU64]>,
    thread: usize,
}

impl Pulse {
    pub(super) fn new(threads: usize) -> Self {
        let answers = (0..threads).map(|_| AtomicU64::new(0)).collect();
        Self { question: watch::Sender::new(0), answers }
    }

    pub(super) fn heart(&self, thread: usize) -> Heart {
        Heart { question: self.question.subscribe(), answers: Arc::clone(&self.answers), thread }
    }

    /// Asks every thread.
    pub fn ask(&self) {
        // Also where no thread is left to hear it.
        self.question.send_modify(|question| *question += 1);
    }

    /// The threads that have not answered the last question, by their names.
    pub fn silent(&self) -> Vec<String> {
        let question = *self.question.borrow();
        // Relaxed: an answer says that its thread runs, and nothing else is read for it.
        let answered = self.answers.iter().map(|answer| answer.load(Relaxed) == question);
        answered
            .enumerate()
            .filter(|(_, answered)| !answered)
            .map(|(thread, _)| thread_name(thread))
            .collect()
    }
}

impl Heart {
    /// Answers questions for as long as anybody may ask.
    pub async fn beat(&mut self) {
        while self.question.changed().await.is_ok() {
            let question = *self.question.borrow_and_update();
            self.answers[self.thread].store(question, Relaxed);
        }
        std::future::pending().await
    }
}

pub(super) fn thread_name(thread: usize) -> String {
    format!("edge-{thread}")
}
