//! Which connections have overstayed: a head that does not come (slow loris),
//! nothing asked for long, an answer that nobody reads, or a body that nobody wants.
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
use tokio::sync::OwnedSemaphorePermit;

use super::linger::linger;
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
    /// A body is read that nobody wants.
    discard_since: AtomicU64,
    /// Bytes may come, or have come, that nobody will read: closing at once would send a reset,
    /// which can overtake the answer.
    unread: AtomicBool,
}

/// Not waiting for that.
const NEVER: u64 = u64::MAX;

/// How long each may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
    /// Behind an answer, for a body that nobody wants.
    pub(super) discard: Duration,
}

/// What each may take at most while connections are scarce.
const HURRY: Duration = Duration::from_secs(1);

/// What has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The request's head.
    Head,
    /// Another request.
    Idle,
    /// The client's reading.
    Write,
    /// What is left of a body that nobody wants.
    Discard,
}

impl Patience {
    pub(super) fn of(server: &ServerConfig) -> Self {
        Self {
            head: server.head_timeout,
            idle: server.idle_timeout,
            write: server.write_timeout,
            discard: server.linger_timeout,
        }
    }

    /// While there is hardly room for another connection, those that ask for nothing make way.
    pub(super) fn in_a_hurry(self) -> Self {
        Self {
            head: self.head.min(HURRY),
            idle: self.idle.min(HURRY),
            write: self.write,
            discard: self.discard.min(HURRY),
        }
    }

    /// How often to look: each limit is noticed at most this much late.
    pub(super) fn rhythm(self) -> Duration {
        self.head.min(self.idle).min(self.write).min(HURRY)
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
            discard_since: AtomicU64::new(NEVER),
            unread: AtomicBool::new(false),
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

    /// What tells of the body of a request on this connection.
    pub(super) fn body(self: &Arc<Self>) -> Unread {
        Unread(Some(Arc::clone(self)))
    }

    /// Bytes may come that nobody will read.
    pub(super) fn note_unread(&self) {
        self.unread.store(true, Relaxed);
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
            (&self.discard_since, patience.discard, Overdue::Discard),
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

/// Tells a connection of a request's body that is not read to its end.
#[derive(Debug, Default)]
pub(crate) struct Unread(Option<Arc<Marks>>);

impl Unread {
    /// Nobody will read what is left.
    pub(crate) fn note(&self) {
        if let Some(marks) = &self.0 {
            marks.note_unread();
        }
    }

    /// What is left is read and thrown away from now on.
    pub(crate) fn discarding(&self) {
        if let Some(marks) = &self.0 {
            marks.discard_since.store(marks.now(), Relaxed);
        }
    }

    /// That is over.
    pub(crate) fn discarded(&self) {
        if let Some(marks) = &self.0 {
            marks.discard_since.store(NEVER, Relaxed);
        }
    }
}

/// A socket that leaves marks, and keeps its place among the connections until it is closed.
#[derive(Debug)]
pub(super) struct Marked {
    /// There until it is dropped.
    socket: Option<TcpStream>,
    marks: Arc<Marks>,
    /// The client has said that it sends no more.
    ended: bool,
    place: Option<OwnedSemaphorePermit>,
}

impl Marked {
    pub(super) fn new(socket: TcpStream, marks: Arc<Marks>, place: OwnedSemaphorePermit) -> Self {
        Self {
            socket: Some(socket),
            marks,
            ended: false,
            place: Some(place),
        }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.socket {
            Some(socket) => Ok(Pin::new(socket)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
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
        let polled = self.socket()?.poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.marks.received();
        } else if let Poll::Ready(Ok(())) = polled {
            self.ended = true;
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
        let wrote = self.socket()?.poll_write(cx, bytes);
        self.mark(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.socket()?.poll_write_vectored(cx, slices);
        self.mark(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let unread = self.marks.unread.load(Relaxed) && !self.ended;
        if let (true, Some(socket), Ok(runtime)) = (
            unread,
            self.socket.take(),
            tokio::runtime::Handle::try_current(),
        ) {
            runtime.spawn(linger(socket, self.place.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(100),
        write: Duration::from_secs(60),
        discard: Duration::from_secs(5),
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
    fn a_body_that_nobody_wants_is_read_for_a_while_and_shorter_in_a_hurry() {
        let marks = Marks::new(Instant::now());
        let _request = marks.request(false);
        let body = marks.body();
        body.discarding();
        let now = marks.now();
        assert_eq!(marks.overdue_at(now + 4_999, PATIENCE), None);
        assert_eq!(
            marks.overdue_at(now + 5_000, PATIENCE),
            Some(Overdue::Discard)
        );
        let hurry = PATIENCE.in_a_hurry();
        assert_eq!(marks.overdue_at(now + 1_000, hurry), Some(Overdue::Discard));
        body.discarded();
        assert_eq!(marks.overdue_at(now + 9_000, hurry), None);
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
