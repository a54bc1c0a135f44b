//! A canned OpenAI-compatible upstream: what a gateway adds is measured in front of it.
//!
//! ```text
//! mock-upstream [ADDRESS] [EVENTS]
//! ```
//!
//! `POST` answers one canned completion or, when the body asks for a stream,
//! EVENTS server-sent events and `[DONE]`. Everything is prepared before the first
//! request; single-threaded, so that it can be pinned to a CPU.
#![expect(
    clippy::unwrap_used,
    reason = "a tool that may stop at the first surprise"
)]

use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is answered, made once.
struct Canned {
    whole: Bytes,
    events: Vec<Bytes>,
}

impl Canned {
    fn new(events: usize) -> Self {
        let text = "A canned answer of a plausible length. ".repeat(8);
        let head = r#""id":"chatcmpl-0","created":1700000000,"model":"mock""#;
        let whole = format!(
            r#"{{{head},"object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":24,"completion_tokens":72,"total_tokens":96}}}}"#
        );
        let event = |delta: String, finish: &str| {
            Bytes::from(format!(
                "data: {{{head},\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
            ))
        };
        let mut all = vec![event(
            r#"{"role":"assistant","content":""}"#.to_owned(),
            "null",
        )];
        all.extend(
            (0..events).map(|index| event(format!(r#"{{"content":"token{index} "}}"#), "null")),
        );
        all.push(event("{}".to_owned(), r#""stop""#));
        all.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Self {
            whole: whole.into(),
            events: all,
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    canned: Rc<Canned>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = BoxError>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let streams = [&br#""stream":true"#[..], br#""stream": true"#]
        .iter()
        .any(|mark| memmem::find(&body, mark).is_some());
    let (kind, body) = if streams {
        // One frame an event, as a model would send them.
        let frames = stream::unfold(0, move |index| {
            let event = canned.events.get(index).cloned();
            async move { event.map(|event| (Ok::<_, BoxError>(Frame::data(event)), index + 1)) }
        });
        (
            "text/event-stream",
            Either::Left(StreamBody::new(Box::pin(frames))),
        )
    } else {
        (
            "application/json",
            Either::Right(Full::new(canned.whole.clone())),
        )
    };
    Ok(Response::builder()
        .header("content-type", kind)
        .body(body)
        .unwrap())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let events = arguments.next().map_or(32, |count| count.parse().unwrap());
    let canned = Rc::new(Canned::new(events));
    let listener = TcpListener::bind(address).await.unwrap();
    let serve = async {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                continue;
            };
            socket.set_nodelay(true).unwrap();
            let canned = Rc::clone(&canned);
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| answer(request, Rc::clone(&canned)));
                // A client that goes away is not this tool's business.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    };
    LocalSet::new().run_until(serve).await;
}
