//! Which connections have overstayed: a head that does not come (slow loris),
//! nothing asked for long, or an answer that nobody reads.
//!
//! The socket and the service leave marks in atomics; the connection's task
//! looks at them at a slow rhythm. So a request costs a few stores, not a timer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::ServerConfig;

/// What a connection is waiting for, and since when (milliseconds after `start`).
#[derive(Debug)]
pub(super) struct Marks {
    start: Instant,
    in_flight: AtomicU32,
    http2: AtomicBool,
    /// A head has begun (or the connection has just been made).
    head_since: AtomicU64,
    idle_since: AtomicU64,
    write_since: AtomicU64,
}

/// Not waiting for that.
const NEVER: u64 = u64::MAX;

/// How long each may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// What has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The request's head.
    Head,
    /// Another request.
    Idle,
    /// The client's reading.
    Write,
}

impl Patience {
    pub(super) fn of(server: &ServerConfig) -> Self {
        Self {
            head: server.head_timeout,
            idle: server.idle_timeout,
            write: server.write_timeout,
        }
    }

    /// How often to look: each limit is noticed at most this much late.
    pub(super) fn rhythm(self) -> Duration {
        self.head
            .min(self.idle)
            .min(self.write)
            .min(Duration::from_secs(5))
    }
}

impl Marks {
    pub(super) fn new(start: Instant) -> Arc<Self> {
        Arc::new(Self {
            start,
            in_flight: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(NEVER),
            write_since: AtomicU64::new(NEVER),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// A request's head is complete.
    pub(super) fn request(self: &Arc<Self>, http2: bool) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.http2.store(http2, Relaxed);
        self.head_since.store(NEVER, Relaxed);
        self.idle_since.store(NEVER, Relaxed);
        InFlight(Arc::new(Leave(Arc::clone(self))))
    }

    /// Bytes came. Between two requests of HTTP/1 they begin a head; HTTP/2
    /// frames need not belong to a request.
    fn received(&self) {
        if self.idle_since.load(Relaxed) != NEVER
            && self.head_since.load(Relaxed) == NEVER
            && !self.http2.load(Relaxed)
        {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    fn write_stalled(&self) {
        if self.write_since.load(Relaxed) == NEVER {
            self.write_since.store(self.now(), Relaxed);
        }
    }

    fn write_went(&self) {
        if self.write_since.load(Relaxed) != NEVER {
            self.write_since.store(NEVER, Relaxed);
        }
    }

    /// Nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// What has taken too long, if anything.
    pub(super) fn overdue(&self, patience: Patience) -> Option<Overdue> {
        self.overdue_at(self.now(), patience)
    }

    fn overdue_at(&self, now: u64, patience: Patience) -> Option<Overdue> {
        let limits = [
            (&self.write_since, patience.write, Overdue::Write),
            (&self.head_since, patience.head, Overdue::Head),
            (&self.idle_since, patience.idle, Overdue::Idle),
        ];
        limits.into_iter().find_map(|(since, limit, overdue)| {
            let since = since.load(Relaxed);
            let waited = Duration::from_millis(now.saturating_sub(since));
            (since != NEVER && waited >= limit).then_some(overdue)
        })
    }
}

/// A request that is being answered; the last clone's drop ends it.
#[derive(Debug, Clone)]
pub(crate) struct InFlight(#[expect(dead_code, reason = "held for its drop")] Arc<Leave>);

#[derive(Debug)]
struct Leave(Arc<Marks>);

impl Drop for Leave {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Relaxed);
        }
    }
}

/// A socket that leaves marks.
#[derive(Debug)]
pub(super) struct Marked {
    socket: TcpStream,
    marks: Arc<Marks>,
}

impl Marked {
    pub(super) fn new(socket: TcpStream, marks: Arc<Marks>) -> Self {
        Self { socket, marks }
    }

    fn mark<T>(&self, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &wrote {
            Poll::Pending => self.marks.write_stalled(),
            Poll::Ready(_) => self.marks.write_went(),
        }
        wrote
    }
}

impl AsyncRead for Marked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.marks.received();
        }
        polled
    }
}

impl AsyncWrite for Marked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.mark(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.mark(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(100),
        write: Duration::from_secs(60),
    };

    #[test]
    fn a_connection_that_never_asks_is_overdue_by_its_head() {
        let marks = Marks::new(Instant::now());
        assert_eq!(marks.overdue_at(9_999, PATIENCE), None);
        assert_eq!(marks.overdue_at(10_000, PATIENCE), Some(Overdue::Head));
    }

    #[test]
    fn a_request_in_flight_may_take_its_time_and_then_idleness_counts() {
        let marks = Marks::new(Instant::now());
        let request = marks.request(false);
        let clone = request.clone();
        assert_eq!(marks.overdue_at(1_000_000_000, PATIENCE), None);
        drop(request);
        assert_eq!(marks.overdue_at(1_000_000_000, PATIENCE), None);
        drop(clone);
        let idle = marks.idle_since.load(Relaxed);
        assert_eq!(marks.overdue_at(idle + 99_999, PATIENCE), None);
        assert_eq!(
            marks.overdue_at(idle + 100_000, PATIENCE),
            Some(Overdue::Idle)
        );
    }

    #[test]
    fn the_first_byte_after_idling_begins_a_head_in_http_1_only() {
        for (http2, expected) in [(false, Some(Overdue::Head)), (true, None)] {
            let marks = Marks::new(Instant::now());
            drop(marks.request(http2));
            marks.received();
            let now = marks.now();
            assert_eq!(marks.overdue_at(now + 10_000, PATIENCE), expected);
        }
    }

    #[test]
    fn a_stalled_write_is_overdue_until_it_goes_on() {
        let marks = Marks::new(Instant::now());
        let _request = marks.request(false);
        marks.write_stalled();
        let now = marks.now();
        assert_eq!(
            marks.overdue_at(now + 60_000, PATIENCE),
            Some(Overdue::Write)
        );
        marks.write_went();
        assert_eq!(marks.overdue_at(now + 60_000, PATIENCE), None);
    }
}
