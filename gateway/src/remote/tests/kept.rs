//! Kept connections that are dead when they are used again.

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// How a connection's second request is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// It is read, and the connection closed.
    Closes,
    /// The same behind a part of an answer.
    Begins,
}

/// Answers the first request, and not the second.
async fn once<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, second: Second, head: &str) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}content-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    for last in [false, true] {
        if !read_request(&mut socket).await {
            return;
        }
        let told = match (last, second) {
            (false, _) => answer.as_str(),
            (true, Second::Closes) => "",
            (true, Second::Begins) => "HTTP/1.1 200 OK\r\n",
        };
        _ = socket.write_all(told.as_bytes()).await;
    }
}

/// Bodies of these tests end like this.
async fn read_request<S: AsyncRead + Unpin>(socket: &mut S) -> bool {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\"x\":1}") {
        if !socket.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            return false;
        }
    }
    true
}

/// An upstream of that kind, and how many connections it has seen.
async fn tcp(second: Second, head: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            tokio::spawn(once(socket, second, head));
        }
    });
    (url, seen)
}

#[tokio::test]
async fn a_request_that_meets_a_dead_connection_goes_out_again_on_a_new_one() {
    let (url, seen) = tcp(Second::Closes, "").await;
    let config = UpstreamConfig {
        retries: 0,
        eject_after: 1,
        ..quick()
    };
    let pool = RemotePool::new(&[url], None, None, &config).await.unwrap();
    for round in 0..6 {
        let (_, answer) = ask(&pool).await;
        let body = text(answer.unwrap()).await;
        assert_eq!(body, ANSWER, "{round}");
    }
    assert!(seen.load(Relaxed) >= 3);
    assert_eq!((pool.upstreams()[0].failures(), pool.retries()), (0, 0));
}

#[tokio::test]
async fn the_same_holds_for_pools_that_are_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(once(socket, Second::Closes, ""));
        }
    });
    let pool = RemotePool::local(&socket, &quick());
    for round in 0..6 {
        let (_, answer) = ask(&pool).await;
        assert_eq!(text(answer.unwrap()).await, ANSWER, "{round}");
    }
    assert_eq!(pool.upstreams()[0].failures(), 0);
}

#[tokio::test]
async fn what_has_been_begun_is_not_asked_again() {
    let (url, seen) = tcp(Second::Begins, "").await;
    let config = UpstreamConfig {
        retries: 0,
        ..quick()
    };
    let pool = RemotePool::new(&[url], None, None, &config).await.unwrap();
    text(ask(&pool).await.1.unwrap()).await;
    let error = ask(&pool).await.1.unwrap_err();
    assert!(matches!(error, ForwardError::Unreachable(_)), "{error}");
    assert_eq!(error.to_string(), "the upstream could not be reached");
    assert_eq!((seen.load(Relaxed), pool.upstreams()[0].failures()), (1, 1));
}

#[tokio::test]
async fn a_connection_is_not_used_where_its_server_has_said_that_it_closes_it() {
    let (url, seen) = tcp(Second::Closes, "keep-alive: timeout=0\r\n").await;
    let pool = RemotePool::new(&[url], None, None, &quick()).await.unwrap();
    for round in 1..4 {
        text(ask(&pool).await.1.unwrap()).await;
        // No second request has met a connection of the first.
        assert_eq!(seen.load(Relaxed), round);
    }
}
