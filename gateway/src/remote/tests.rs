#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod asking;
mod kept;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sluice_engine::request::{FinishReason, Usage};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::config::UpstreamConfig;
use crate::context::Fault;
use crate::endpoint::Protocol;
use crate::{Body, BoxError, RequestContext, full};

/// What a test upstream does with a request.
#[derive(Default)]
struct Script {
    /// Status of plain answers; 0 hangs up without an answer.
    status: AtomicU16,
    seen: AtomicUsize,
    last: Mutex<Option<(http::request::Parts, Bytes)>>,
    /// Pieces of a stream; an `Err` breaks the connection. `None`: answer plainly.
    stream: Mutex<Option<mpsc::Receiver<Result<&'static str, ()>>>>,
    /// The plain answer, where it is another.
    plain: Mutex<Option<String>>,
    /// A field that it does not know.
    unknown: Mutex<Option<&'static str>>,
    /// Tells when the exchange of the stream is dropped.
    open_streams: Arc<()>,
}

const ANSWER: &str = r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;

/// An event with output.
const WORD: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

struct Upstream {
    script: Arc<Script>,
    address: SocketAddr,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script::default());
        script.status.store(200, Relaxed);
        tokio::spawn({
            let script = Arc::clone(&script);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let script = Arc::clone(&script);
                    tokio::spawn(async move {
                        let service =
                            service_fn(move |request| answer(Arc::clone(&script), request));
                        _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                }
            }
        });
        Self { script, address }
    }

    fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    fn seen(&self) -> usize {
        self.script.seen.load(Relaxed)
    }

    fn answer_with(&self, status: u16) {
        self.script.status.store(status, Relaxed);
    }

    /// The next answer is a stream of what is sent here, and begins with a word.
    fn stream(&self) -> mpsc::Sender<Result<&'static str, ()>> {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(WORD)).unwrap();
        *self.script.stream.lock() = Some(receiver);
        sender
    }
}

async fn answer(
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    script.seen.fetch_add(1, Relaxed);
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let unknown = *script.unknown.lock();
    if let Some(field) = unknown.filter(|it| memchr::memmem::find(&body, it.as_bytes()).is_some()) {
        let told = format!(r#"{{"error":{{"message":"Unrecognized argument: {field}"}}}}"#);
        let response = Response::builder().status(400);
        return Ok(response
            .header("content-type", "application/json")
            .body(full(told))?);
    }
    *script.last.lock() = Some((parts, body));
    let receiver = script.stream.lock().take();
    if let Some(receiver) = receiver {
        let open = Arc::clone(&script.open_streams);
        let pieces = futures_util::stream::unfold((receiver, open), |(mut receiver, open)| async {
            let piece = receiver.recv().await?;
            let frame = piece
                .map(|text| Frame::data(Bytes::from_static(text.as_bytes())))
                .map_err(|()| BoxError::from("scripted"));
            Some((frame, (receiver, open)))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        return Ok(response.body(StreamBody::new(pieces.boxed()).boxed_unsync())?);
    }
    match script.status.load(Relaxed) {
        0 => Err("scripted".into()),
        status => Ok(Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("set-cookie", "theirs")
            .body(full(
                script
                    .plain
                    .lock()
                    .clone()
                    .unwrap_or_else(|| ANSWER.to_owned()),
            ))?),
    }
}

fn quick() -> UpstreamConfig {
    UpstreamConfig {
        eject_after: 3,
        ..UpstreamConfig::default()
    }
}

async fn pool(upstreams: &[&Upstream], config: &UpstreamConfig) -> RemotePool {
    let urls: Vec<_> = upstreams.iter().map(|upstream| upstream.url()).collect();
    RemotePool::new(&urls, Some("their-name"), Some("their-key"), config)
        .await
        .unwrap()
}

const BODY: &str = r#"{"messages": [], "model" : "our-name", "x":1}"#;
const STREAM: &str = r#"{"messages": [], "model" : "our-name", "stream":true}"#;

async fn ask(pool: &RemotePool) -> (RequestContext, Result<Response<Body>, ForwardError>) {
    ask_for(pool, false).await
}

async fn ask_for(
    pool: &RemotePool,
    stream: bool,
) -> (RequestContext, Result<Response<Body>, ForwardError>) {
    let context = RequestContext::new("id-1", "/v1/chat/completions");
    let request = Request::post("http://gateway/v1/chat/completions?a=b")
        .header("authorization", "Bearer the-clients")
        .header("traceparent", "00-1-2-01")
        .body(())
        .unwrap();
    let body = Bytes::from_static(if stream { STREAM } else { BODY }.as_bytes());
    let envelope = Envelope::parse(&body).unwrap();
    let answer = pool
        .forward(
            &context,
            &request.into_parts().0,
            body,
            &envelope,
            Protocol::Chat,
        )
        .await;
    (context, answer)
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_the_upstream_knows_it() {
    let upstream = Upstream::start().await;
    let pool = pool(&[&upstream], &quick()).await;
    let (context, answer) = ask(&pool).await;
    let answer = answer.unwrap();
    assert!(!answer.headers().contains_key("set-cookie"));
    assert_eq!(text(answer).await, ANSWER);
    let (parts, body) = upstream.script.last.lock().take().unwrap();
    assert_eq!(parts.uri.to_string(), "/v1/chat/completions?a=b");
    assert_eq!(parts.headers["authorization"], "Bearer their-key");
    assert_eq!(parts.headers["traceparent"], "00-1-2-01");
    assert_eq!(parts.headers["x-request-id"], "id-1");
    assert_eq!(parts.headers["host"], upstream.address.to_string());
    assert_eq!(body, r#"{"messages": [], "model" : "their-name", "x":1}"#);
    assert_eq!(
        context.outcome.usage(),
        Usage {
            prompt: 3,
            cached: 0,
            completion: 5
        }
    );
    assert_eq!(context.outcome.finish(), Some(FinishReason::Stop));
    assert!(!context.outcome.target_time().is_zero());
}

#[tokio::test]
async fn load_spreads_over_idle_upstreams() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let pool = pool(&[&a, &b], &quick()).await;
    let mut open = Vec::new();
    // Held open, so each counts as in flight. How even it is depends on how fast each
    // has answered, too: on a busy machine one may get most.
    for _ in 0..20 {
        let (to_a, to_b) = (a.stream(), b.stream());
        let answer = ask_for(&pool, true).await.1.unwrap();
        open.push((answer, to_a, to_b));
    }
    assert_eq!(pool.in_flight(), 20);
    assert!(
        a.seen() >= 1 && b.seen() >= 1,
        "{} and {}",
        a.seen(),
        b.seen()
    );
    drop(open);
    assert_eq!(pool.in_flight(), 0);
}

#[tokio::test]
async fn a_lost_connection_and_a_503_are_retried_elsewhere() {
    for status in [0, 502, 503, 504] {
        let (bad, good) = (Upstream::start().await, Upstream::start().await);
        bad.answer_with(status);
        let pool = pool(
            &[&bad, &good],
            &UpstreamConfig {
                eject_after: 0,
                ..quick()
            },
        )
        .await;
        for _ in 0..20 {
            let answer = ask(&pool).await.1.unwrap();
            assert_eq!(answer.status(), 200, "after {status}");
        }
        assert!(bad.seen() > 0 && pool.retries() > 0);
    }
}

#[tokio::test]
async fn other_answers_pass_as_they_are_and_are_not_retried() {
    for status in [400, 404, 429, 500] {
        let (a, b) = (Upstream::start().await, Upstream::start().await);
        a.answer_with(status);
        b.answer_with(status);
        let pool = pool(&[&a, &b], &quick()).await;
        let answer = ask(&pool).await.1.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(a.seen() + b.seen(), 1);
    }
}

#[tokio::test]
async fn a_clients_faults_never_eject() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    for status in [400, 429] {
        a.answer_with(status);
        b.answer_with(status);
        let pool = pool(&[&a, &b], &quick()).await;
        for _ in 0..50 {
            ask(&pool).await.1.unwrap();
        }
        assert!(
            pool.upstreams()
                .iter()
                .all(|upstream| !upstream.is_ejected())
        );
    }
}

#[tokio::test]
async fn failures_in_a_row_eject_and_a_probe_readmits() {
    let (bad, good) = (Upstream::start().await, Upstream::start().await);
    let config = UpstreamConfig {
        eject_for: Duration::from_millis(1),
        eject_for_max: Duration::from_millis(1),
        ..quick()
    };
    let pool = pool(&[&bad, &good], &config).await;
    bad.answer_with(500);
    while !pool.upstreams()[0].is_ejected() {
        ask(&pool).await.1.unwrap();
    }
    assert!(!pool.upstreams()[1].is_ejected());
    bad.answer_with(200);
    while pool.upstreams()[0].is_ejected() {
        ask(&pool).await.1.unwrap();
    }
}

#[tokio::test]
async fn at_most_the_allowed_share_is_ejected() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    a.answer_with(500);
    b.answer_with(500);
    let pool = pool(&[&a, &b], &quick()).await;
    for _ in 0..50 {
        assert_eq!(ask(&pool).await.1.unwrap().status(), 500);
    }
    let ejected = pool
        .upstreams()
        .iter()
        .filter(|upstream| upstream.is_ejected())
        .count();
    assert_eq!(ejected, 1);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let pool = RemotePool::new(&[url], None, None, &quick()).await.unwrap();
    let error = ask(&pool).await.1.unwrap_err();
    assert!(matches!(error, ForwardError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn no_first_byte_in_time_is_a_timeout_and_not_retried() {
    // The system accepts for it, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", silent.local_addr().unwrap());
    let config = UpstreamConfig {
        first_byte_timeout: Duration::from_millis(20),
        ..quick()
    };
    let pool = RemotePool::new(&[url], None, None, &config).await.unwrap();
    assert!(matches!(ask(&pool).await.1, Err(ForwardError::Timeout)));
    assert_eq!(pool.retries(), 0);
}

#[tokio::test]
async fn the_first_piece_arrives_before_the_second_is_sent() {
    let upstream = Upstream::start().await;
    let pool = pool(&[&upstream], &quick()).await;
    let pieces = upstream.stream();
    let (context, answer) = ask_for(&pool, true).await;
    assert!(context.outcome.ttft().is_some());
    let mut body = answer.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), WORD);
    for piece in [WORD, ": ping\n\n", "data: [DONE]\n\n"] {
        pieces.send(Ok(piece)).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    // The upstream has said that it is done, and leaves its connection open all the same.
    let end = tokio::time::timeout(quick().idle_timeout / 4, body.frame()).await;
    assert!(end.unwrap().is_none());
    drop(pieces);
    assert_eq!(context.outcome.fault(), None);
}

#[tokio::test]
async fn a_hang_up_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let pool = pool(&[&upstream], &quick()).await;
    let pieces = upstream.stream();
    let answer = ask_for(&pool, true).await.1.unwrap();
    assert_eq!(pool.in_flight(), 1);
    drop(answer);
    assert_eq!(pool.in_flight(), 0);
    // Comes back when the upstream has dropped its stream.
    pieces.closed().await;
    assert!(!pool.upstreams()[0].is_ejected());
}

#[tokio::test]
async fn an_upstream_that_dies_in_a_stream_is_told_and_breaks_the_connection() {
    let upstream = Upstream::start().await;
    let pool = pool(&[&upstream], &quick()).await;
    let pieces = upstream.stream();
    let (context, answer) = ask_for(&pool, true).await;
    let mut body = answer.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    pieces.send(Err(())).await.unwrap();
    let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(
        event.starts_with(b"data: {\"error\":{") && event.ends_with(b"\n\n"),
        "{event:?}"
    );
    assert!(body.frame().await.unwrap().is_err());
    assert!(body.frame().await.is_none());
    assert_eq!(context.outcome.fault(), Some(Fault::Server));
    assert_eq!(pool.upstreams()[0].failures(), 1);
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends() {
    let upstream = Upstream::start().await;
    let config = UpstreamConfig {
        idle_timeout: Duration::from_millis(20),
        ..quick()
    };
    let pool = pool(&[&upstream], &config).await;
    let _pieces = upstream.stream();
    let mut body = ask_for(&pool, true).await.1.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"data: {\"error\""));
    assert!(body.frame().await.unwrap().is_err());
}

#[test]
fn the_user_and_the_form_of_the_answer_are_read() {
    for (body, user, structured) in [
        (r#"{"user":"ann"}"#, Some("ann"), false),
        (
            r#"{"user":"a\u00e9\"","x":{"user":"no"}}"#,
            Some("aé\""),
            false,
        ),
        (r#"{"user":null}"#, None, false),
        (r#"{"user":7}"#, None, false),
        (r#"{"response_format":{"type":"json_schema"}}"#, None, true),
        (r#"{"response_format":{"type":"text"}}"#, None, false),
        (r#"{"guided_json":{}}"#, None, true),
    ] {
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!(envelope.user(body.as_bytes()).as_deref(), user, "{body}");
        assert_eq!(envelope.structured, structured, "{body}");
    }
}

#[test]
fn what_is_to_be_embedded_is_counted() {
    for (body, inputs) in [
        (r#"{"input":"a text"}"#, Some(1)),
        (r#"{"input":["a","b","c"]}"#, Some(3)),
        (r#"{"input":[17,4,2]}"#, Some(1)),
        (r#"{"input":[[17],[4,2]]}"#, Some(2)),
        (r#"{"input":[]}"#, None),
        (r#"{"input":{"a":[1,{}]},"model":"m"}"#, None),
        (r#"{"input":null}"#, None),
        (r#"{"input":-1.5}"#, None),
        // Half a character, which clients that cut texts send: passed on as it is.
        (r#"{"input":"\ud83d"}"#, Some(1)),
        (r#"{"input":["\ud83d","b"]}"#, Some(2)),
        (r#"{"input":[ [1e999], {} ]}"#, Some(2)),
        (r#"{"messages":[]}"#, None),
    ] {
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!(envelope.vectors(Protocol::Embeddings), inputs, "{body}");
        assert_eq!(envelope.vectors(Protocol::Chat), None);
    }
}
