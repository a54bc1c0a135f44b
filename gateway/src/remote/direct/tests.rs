#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::remote::connect::{self, Upstream};

/// An upstream whose every byte is written by the test.
struct Peer {
    listener: TcpListener,
    client: Upstream,
    uri: Uri,
}

impl Peer {
    async fn start(config: &UpstreamConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let uri: Uri = format!("http://{address}/v1").parse().unwrap();
        let client = connect::client(&uri, config, None).await.unwrap();
        Self {
            listener,
            client,
            uri,
        }
    }

    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    async fn ask(&self) -> Result<Response<Answer>, BoxError> {
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        *request.uri_mut() = self.uri.clone();
        let answer = self.client.request(request, false).await;
        answer.map_err(|lost| lost.error)
    }

    /// Asks; the upstream answers with `bytes` on `socket`.
    async fn exchange(&self, socket: &mut TcpStream, bytes: &str) -> Response<Answer> {
        let upstream = async {
            let head = read_request(socket).await;
            socket.write_all(bytes.as_bytes()).await.unwrap();
            head
        };
        let (answer, head) = tokio::join!(self.ask(), upstream);
        let host = format!("host: {}\r\n", self.uri.authority().unwrap());
        assert!(head.starts_with("GET /v1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&host), "{head}");
        answer.unwrap()
    }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n{}") {
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
    }
    String::from_utf8(bytes).unwrap()
}

async fn is_closed(socket: &mut TcpStream) -> bool {
    // Unread bytes make a close a reset.
    !matches!(socket.read(&mut [0; 1]).await, Ok(1..))
}

async fn text(answer: Response<Answer>) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
    2\r\na\n\r\n2\r\nb\n\r\n2\r\nc\n\r\n0\r\n\r\n";

#[tokio::test]
async fn a_connection_whose_answer_has_ended_is_used_again() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let (first, mut socket) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        socket.write_all(WHOLE.as_bytes()).await.unwrap();
        socket
    });
    assert_eq!(text(first.unwrap()).await, "ok");
    for (bytes, expected) in [(CHUNKED, "a\nb\nc\n"), (EMPTY, ""), (WHOLE, "ok")] {
        let answer = peer.exchange(&mut socket, bytes).await;
        assert_eq!(text(answer).await, expected);
    }
}

#[tokio::test]
async fn pieces_that_came_together_are_there_without_waiting() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let (answer, _socket) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        socket.write_all(CHUNKED.as_bytes()).await.unwrap();
        socket
    });
    let mut body = answer.unwrap().into_body();
    let frame = body.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b"a\nb\nc\n");
    assert!(body.is_end_stream());
    assert!(body.frame().now_or_never().unwrap().is_none());
}

#[tokio::test]
async fn a_piece_does_not_wait_for_the_next() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\n2\r";
    let (answer, mut socket) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    });
    let mut body = answer.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b"a\n");
    assert!(body.frame().now_or_never().is_none());
    // A piece, and a break where the next should be: both are handed on, in this order.
    socket.write_all(b"\nb\n\r\nnonsense").await.unwrap();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b"b\n");
    assert!(!body.is_end_stream());
    body.frame().await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_connection_closed_while_unused_is_no_failure() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    for _ in 0..3 {
        let (answer, ()) = tokio::join!(peer.ask(), async {
            let mut socket = peer.accept().await;
            read_request(&mut socket).await;
            socket.write_all(WHOLE.as_bytes()).await.unwrap();
        });
        assert_eq!(text(answer.unwrap()).await, "ok");
        // The close is on its way: one turn of the reactor lets it arrive.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_answer_dropped_before_its_end_closes_the_connection() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let (answer, mut socket) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        let half = &CHUNKED[..CHUNKED.len() - 5];
        socket.write_all(half.as_bytes()).await.unwrap();
        socket
    });
    drop(answer.unwrap());
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn giving_up_before_the_head_closes_the_connection() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let mut asked = Box::pin(peer.ask());
    let mut socket = tokio::select! {
        _ = asked.as_mut() => panic!("nobody has answered"),
        socket = async {
            let mut socket = peer.accept().await;
            read_request(&mut socket).await;
            socket
        } => socket,
    };
    drop(asked);
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn connections_unused_for_long_are_closed() {
    let config = UpstreamConfig {
        keep_alive: Duration::from_millis(20),
        ..UpstreamConfig::default()
    };
    let peer = Peer::start(&config).await;
    let (answer, mut socket) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        socket.write_all(WHOLE.as_bytes()).await.unwrap();
        socket
    });
    assert_eq!(text(answer.unwrap()).await, "ok");
    assert!(is_closed(&mut socket).await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let peer = Peer::start(&UpstreamConfig::default()).await;
    let (answer, ()) = tokio::join!(peer.ask(), async {
        let mut socket = peer.accept().await;
        read_request(&mut socket).await;
        let half = &CHUNKED[..CHUNKED.len() - 5];
        socket.write_all(half.as_bytes()).await.unwrap();
    });
    let mut body = answer.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "a\nb\nc\n");
    assert!(body.frame().await.unwrap().is_err());
}
