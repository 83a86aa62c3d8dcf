//! The body of a request, handed to the connection in pieces, so that a long one can tell how far it is.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The bytes that are still to be sent, and who wants to hear of each piece. The default is no body.
#[derive(Clone, Default)]
pub struct Outgoing {
    rest: Bytes,
    told: Option<Told>,
}

/// Hears how many bytes the connection has taken since it was last told.
pub type Told = Arc<dyn Fn(usize) + Send + Sync>;

impl Outgoing {
    pub fn new(bytes: Bytes, told: Option<Told>) -> Self {
        Self { rest: bytes, told }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece_bytes = self.rest.len().min(PIECE_BYTES_MAX);
        let piece = self.rest.split_to(piece_bytes);
        if let Some(told) = &self.told {
            told(piece_bytes);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl fmt::Debug for Outgoing {
    /// The length alone: a body may hold the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} bytes)", self.rest.len())
    }
}

/// Small enough that a bar moves, large enough to cost nothing.
const PIECE_BYTES_MAX: usize = 256 * 1024;
