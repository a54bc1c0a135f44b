//! An upstream that writes what it is told, byte by byte, so that it can be wrong on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What it writes for one request, and what it does then.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Written one after the other, with a pause between them.
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Closes the connection.
    Close,
    /// Says nothing more.
    Silence,
}

impl Reply {
    /// A response with a body of known length.
    pub(super) fn whole(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        Self::raw(&[&head, body])
    }

    /// 200 with JSON.
    pub(super) fn json(body: &str) -> Self {
        Self::whole(200, "content-type: application/json\r\n", body)
    }

    /// 200 with events, chunked; the last chunk is written, too.
    pub(super) fn events(events: &[&str]) -> Self {
        let mut reply = Self::begun(events);
        reply.pieces.push(b"0\r\n\r\n".to_vec());
        reply
    }

    /// The same without an end.
    pub(super) fn begun(events: &[&str]) -> Self {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        let mut reply = Self::raw(&[head]);
        for event in events {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            reply.pieces.push(chunk.into_bytes());
        }
        reply
    }

    pub(super) fn raw(pieces: &[&str]) -> Self {
        Self {
            pieces: pieces
                .iter()
                .map(|piece| piece.as_bytes().to_vec())
                .collect(),
            then: Then::Close,
        }
    }

    pub(super) fn silent(mut self) -> Self {
        self.then = Then::Silence;
        self
    }
}

pub(super) struct RawUpstream {
    pub(super) address: SocketAddr,
    pub(super) reply: Arc<Mutex<Reply>>,
    seen: Arc<AtomicUsize>,
}

impl RawUpstream {
    pub(super) async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reply = Arc::new(Mutex::new(reply));
        let seen = Arc::<AtomicUsize>::default();
        let (current, count) = (Arc::clone(&reply), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let reply = current.lock().clone();
                tokio::spawn(serve(socket, reply));
            }
        });
        Self {
            address,
            reply,
            seen,
        }
    }

    pub(super) fn answer_with(&self, reply: &Reply) {
        *self.reply.lock() = reply.clone();
    }

    /// Requests so far.
    pub(super) fn seen(&self) -> usize {
        self.seen.load(Relaxed)
    }
}

async fn serve(mut socket: TcpStream, reply: Reply) {
    if read_request(&mut socket).await.is_none() {
        return;
    }
    for (number, piece) in reply.pieces.iter().enumerate() {
        // So that each is seen by itself.
        if number > 1 {
            tokio::task::yield_now().await;
        }
        if socket.write_all(piece).await.is_err() {
            return;
        }
        _ = socket.flush().await;
    }
    if reply.then == Then::Silence {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

/// Reads head and body of one request, as far as `Content-Length` says.
async fn read_request(socket: &mut TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut piece = [0; 4096];
        let read = socket
            .read(&mut piece)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < head + length {
        let mut piece = [0; 4096];
        let read = socket
            .read(&mut piece)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
    Some(())
}
