//! A connection that knows what has gone over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether a connection had served before, and whether what was asked last has been answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    reused: AtomicBool,
    answered: AtomicBool,
}

impl Seen {
    fn wrote(&self) {
        if self.0.answered.swap(false, Relaxed) {
            self.0.reused.store(true, Relaxed);
        }
    }

    fn read(&self) {
        self.0.answered.store(true, Relaxed);
    }

    /// It had served before, and not a byte came back of what was sent last: if it is dead now,
    /// the peer closed it while it lay unused.
    pub(super) fn is_unanswered_reuse(&self) -> bool {
        self.0.reused.load(Relaxed) && !self.0.answered.load(Relaxed)
    }
}

/// A stream whose bytes are noted.
#[derive(Debug)]
pub(super) struct Watched<T> {
    stream: T,
    seen: Seen,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T) -> Self {
        Self {
            stream,
            seen: Seen::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.seen.read();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.wrote();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.wrote();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What it has seen travels with the pool's own notes on a connection.
impl<T: Connection> Connection for Watched<T> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.seen())
    }
}
