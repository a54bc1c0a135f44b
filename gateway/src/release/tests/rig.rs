//! A server with one name, `m`, behind which revisions come and go.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_engine::backend::fake::{FakeControl, FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::language::LanguageModel;
use sluice_engine::request::Usage;
use tokio::net::TcpListener;

use crate::config::{Config, UpstreamConfig};
use crate::metrics::observer::{Record, UsageSink};
use crate::release::{ReleaseOutcome, ReleaseSink, ShadowPair};
use crate::remote::RemotePool;
use crate::router::split::{Split, SplitConfig, StickyKey, Weight};
use crate::router::{Deployment, Entry, LocalModel, Release, Source, Standing, Target, load};
use crate::server::{Server, StopHandle};
use crate::{Body, BoxError, Gateway, full};

/// `<|im_end|>` of the fake tokenizer.
const END: u32 = 258;

pub(super) struct Rig {
    pub(super) gateway: Arc<Gateway>,
    pub(super) heard: Arc<Heard>,
    pub(super) billed: Arc<Billed>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: StopHandle,
}

/// What came back, whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    /// The connection broke before the end.
    pub(super) broken: bool,
}

impl Answer {
    pub(super) fn revision(&self) -> &str {
        self.headers["x-sluice-revision"].to_str().unwrap()
    }
}

/// All that a release's listener was told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    outcomes: Mutex<Vec<ReleaseOutcome>>,
    pairs: Mutex<Vec<ShadowPair>>,
}

impl ReleaseSink for Heard {
    fn outcome(&self, outcome: ReleaseOutcome) {
        self.outcomes.lock().push(outcome);
    }

    fn pair(&self, pair: ShadowPair) {
        self.pairs.lock().push(pair);
    }
}

/// Requests that a ledger was told of.
#[derive(Debug, Default)]
pub(super) struct Billed {
    pub(super) requests: AtomicUsize,
    pub(super) tokens: AtomicUsize,
    /// Of the last one.
    pub(super) last: Mutex<Usage>,
}

impl UsageSink for Billed {
    fn record(&self, record: &Record) {
        let usage = record.context.outcome.usage();
        *self.last.lock() = usage;
        self.tokens
            .fetch_add(usage.prompt + usage.completion, Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }
}

/// Comes back when it is so; a test that waits for ever fails by the runner's limit.
pub(super) async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(super) async fn with(mut config: Config) -> Self {
        config.listen.set_port(0);
        let gateway = Gateway::new(config).unwrap();
        gateway.set_ready(true);
        let (heard, billed) = (Arc::<Heard>::default(), Arc::<Billed>::default());
        gateway.releases().tell(Arc::clone(&heard) as _);
        gateway.observer().tell(Arc::clone(&billed) as _);
        let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
        let address = server.address();
        let (handle, stop) = StopHandle::new();
        tokio::spawn(server.run(stop));
        Self {
            gateway,
            heard,
            billed,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _stop: handle,
        }
    }

    /// A revision in this process that answers `text`.
    pub(super) fn local(&self, revision: &str, text: &str) -> (Arc<Deployment>, FakeControl) {
        let control = FakeControl::new();
        let options = FakeOptions {
            tokens: FakeTokens::text(text, END),
            ..FakeOptions::default()
        };
        let generator = GeneratorOptions::default();
        let model = LanguageModel::fake_with("m", options, control.clone(), generator).unwrap();
        let target = Target::from(LocalModel::Language(Arc::new(model)));
        (self.deployment(revision, target), control)
    }

    /// A revision on an upstream.
    pub(super) async fn remote(&self, revision: &str, address: SocketAddr) -> Arc<Deployment> {
        let url = format!("http://{address}/v1");
        let config = UpstreamConfig {
            eject_after: 0,
            ..UpstreamConfig::default()
        };
        let pool = RemotePool::new(&[url], None, None, &config).await.unwrap();
        self.deployment(revision, Target::Remote(pool))
    }

    /// A revision on several upstreams, which are left alone after two failures.
    pub(super) async fn balanced(
        &self,
        revision: &str,
        addresses: &[SocketAddr],
    ) -> (Arc<Deployment>, RemotePool) {
        let urls: Vec<String> = addresses
            .iter()
            .map(|it| format!("http://{it}/v1"))
            .collect();
        let config = UpstreamConfig {
            eject_after: 2,
            ..UpstreamConfig::default()
        };
        let pool = RemotePool::new(&urls, None, None, &config).await.unwrap();
        (
            self.deployment(revision, Target::Remote(pool.clone())),
            pool,
        )
    }

    fn deployment(&self, revision: &str, target: Target) -> Arc<Deployment> {
        load::make(&self.gateway, "m", revision, target, Standing::default())
    }

    pub(super) fn publish(&self, entry: impl Into<Entry>) {
        let entries = vec![entry.into()];
        self.gateway.publish_from(Source::Control, entries).unwrap();
    }

    /// Publishes a release between two revisions, with percent.
    pub(super) fn release(
        &self,
        stable: &Arc<Deployment>,
        candidate: &Arc<Deployment>,
        weight: f64,
        shadow: f64,
    ) {
        let (stable, candidate) = (Arc::clone(stable), Arc::clone(candidate));
        let split = split(weight, shadow);
        let release = Release::new("rel-1", stable, candidate, split).unwrap();
        self.publish(Arc::new(release));
    }

    pub(super) async fn send(&self, user: &str, stream: bool) -> Response<Incoming> {
        self.send_with(&json!({"user": user, "stream": stream}))
            .await
    }

    pub(super) async fn send_with(&self, extra: &Value) -> Response<Incoming> {
        let mut body = json!({
            "model": "m", "temperature": 0, "messages": [{"role": "user", "content": "Hi"}],
        });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post("/v1/chat/completions", &body.to_string(), &[])
            .await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::post(uri).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.to_owned().into())).unwrap();
        self.client.request(request).await.unwrap()
    }

    pub(super) async fn ask(&self, user: &str, stream: bool) -> Answer {
        whole(self.send(user, stream).await).await
    }

    /// Prompt and generated tokens of the next request that the ledger is told of, once `request`
    /// is over.
    pub(super) async fn billed(&self, request: impl Future<Output = ()>) -> (usize, usize) {
        let before = self.billed.requests.load(Relaxed);
        request.await;
        until(|| self.billed.requests.load(Relaxed) > before).await;
        let usage = *self.billed.last.lock();
        (usage.prompt, usage.completion)
    }

    /// The only outcome that has been heard of since the last call.
    pub(super) async fn outcome(&self) -> ReleaseOutcome {
        until(|| !self.heard.outcomes.lock().is_empty()).await;
        let mut outcomes = std::mem::take(&mut *self.heard.outcomes.lock());
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// All outcomes, once there are so many.
    pub(super) async fn outcomes(&self, count: usize) -> Vec<ReleaseOutcome> {
        until(|| self.heard.outcomes.lock().len() >= count).await;
        std::mem::take(&mut *self.heard.outcomes.lock())
    }

    /// The same for pairs.
    pub(super) async fn pair(&self) -> ShadowPair {
        until(|| !self.heard.pairs.lock().is_empty()).await;
        let mut pairs = std::mem::take(&mut *self.heard.pairs.lock());
        assert_eq!(pairs.len(), 1);
        pairs.remove(0)
    }

    pub(super) fn metrics(&self) -> String {
        self.gateway.metrics().render(&self.gateway.routes())
    }
}

/// By users, with percent.
pub(super) fn split(weight: f64, shadow: f64) -> Split {
    Split::new(SplitConfig {
        salt: "m".to_owned(),
        weight: Weight::percent(weight).unwrap(),
        shadow: Weight::percent(shadow).unwrap(),
        sticky: vec![StickyKey::User],
        ..SplitConfig::default()
    })
}

pub(super) async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut broken) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().unwrap()),
            Err(_) => broken = true,
        }
    }
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes).unwrap(),
        broken,
    }
}

/// What an upstream does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers as asked, with this text.
    Says(&'static str),
    /// Answers with a status.
    Refuses(u16),
    /// Closes the connection without an answer.
    HangsUp,
    /// Sends a head, and breaks before the first token or the end.
    Begins,
    /// Sends the first token, and breaks. Of a stream only.
    Breaks,
}

/// An upstream whose manner can be changed.
pub(super) struct Upstream {
    pub(super) manner: Arc<Mutex<Manner>>,
    pub(super) address: SocketAddr,
}

impl Upstream {
    pub(super) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(Mutex::new(manner));
        let behaviour = Arc::clone(&manner);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let manner = Arc::clone(&behaviour);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(*manner.lock(), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service);
                    _ = connection.await;
                });
            }
        });
        Self { manner, address }
    }
}

async fn answer(manner: Manner, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    let asked: Value = serde_json::from_slice(&body)?;
    let is_stream = asked["stream"] == true;
    let kind = if is_stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let head = Response::builder().header("content-type", kind);
    let role = event(&json!({"role": "assistant", "content": ""}));
    let pieces: Vec<Result<String, BoxError>> = match (manner, is_stream) {
        (Manner::Refuses(status), _) => {
            return Ok(head.status(status).body(full(r#"{"error":{}}"#))?);
        }
        (Manner::HangsUp, _) => return Err("scripted".into()),
        (Manner::Says(text), true) => {
            let text = event(&json!({"content": text}));
            vec![Ok(role), Ok(text), Ok("data: [DONE]\n\n".to_owned())]
        }
        (Manner::Says(text), false) => {
            let choice = json!({"index": 0, "message": {"content": text}, "finish_reason": "stop"});
            let usage = json!({"prompt_tokens": 3, "completion_tokens": 5});
            vec![Ok(json!({"choices": [choice], "usage": usage}).to_string())]
        }
        (Manner::Begins, true) => vec![Ok(role), Err("scripted".into())],
        (Manner::Begins | Manner::Breaks, false) => {
            vec![Ok("{\"choices\":".to_owned()), Err("scripted".into())]
        }
        (Manner::Breaks, true) => {
            let text = event(&json!({"content": "a"}));
            vec![Ok(role), Ok(text), Err("scripted".into())]
        }
    };
    // Each piece is sent by itself.
    let frames = stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::task::yield_now().await;
        let piece = pieces.next()?;
        Some((piece.map(|text| Frame::data(Bytes::from(text))), pieces))
    });
    Ok(head.body(Body::new(StreamBody::new(frames)))?)
}

fn event(delta: &Value) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": delta}]})
    )
}
