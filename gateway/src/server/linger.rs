//! Closing so that the answer arrives.
//!
//! A socket that is closed with unread bytes in it, or that gets more afterwards, answers with a
//! reset, and a reset makes the client's system throw away what it has received and its program has
//! not read: the answer that says what was wrong. So the server's direction is closed first, and
//! what the client still sends is read and thrown away until it closes too (RFC 9112, section 9.6).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// How long that may take: a few round trips.
const AT_MOST: Duration = Duration::from_secs(2);

/// Bytes that are thrown away at most.
const BYTES: usize = 16 << 20;

/// Ends a connection; `place` is given back afterwards.
pub(super) async fn linger(mut socket: TcpStream, place: Option<OwnedSemaphorePermit>) {
    let end = async {
        socket.shutdown().await?;
        let mut thrown = [0; 4096];
        let mut bytes = 0;
        while bytes < BYTES {
            match socket.read(&mut thrown).await? {
                0 => break,
                more => bytes += more,
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever goes on sending beyond that gets the reset.
    if let Ok(Err(error)) = tokio::time::timeout(AT_MOST, end).await {
        tracing::trace!(%error, "a connection was closed by its client");
    }
    drop(place);
}
