//! A server on a free port, with one fake language model called `fake`.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sluice_engine::backend::fake::{FakeControl, FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::language::LanguageModel;

use crate::Gateway;
use crate::auth::keys;
use crate::config::Config;
use crate::router::{Deployment, LocalModel, RouteTable};
use crate::server::{Server, StopHandle};

/// `<|im_end|>` of the fake tokenizer, whose first 256 ids are the bytes.
pub(super) const END: u32 = 258;

pub(super) struct Rig {
    pub(super) control: FakeControl,
    pub(super) model: Arc<LanguageModel>,
    pub(super) gateway: Arc<Gateway>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: StopHandle,
}

/// What came back, whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Rig {
    /// A model that answers `text` and ends.
    pub(super) async fn saying(text: &str) -> Self {
        let tokens = FakeTokens::text(text, END);
        Self::start(tokens, GeneratorOptions::default(), 8).await
    }

    pub(super) async fn start(tokens: FakeTokens, generator: GeneratorOptions, slots: u32) -> Self {
        let backend = FakeOptions {
            slots,
            tokens,
            ..FakeOptions::default()
        };
        Self::with(backend, generator).await
    }

    /// With 512 tokens of context.
    pub(super) async fn with(backend: FakeOptions, generator: GeneratorOptions) -> Self {
        Self::under(Config::default(), backend, generator).await
    }

    /// The same as `config` says. Where keys are asked for, ada's is `sk-ada` and bob's `sk-bob`.
    pub(super) async fn under(
        mut config: Config,
        backend: FakeOptions,
        generator: GeneratorOptions,
    ) -> Self {
        let control = FakeControl::new();
        let backend = FakeOptions {
            capacity: 512,
            ..backend
        };
        let model = LanguageModel::fake_with("fake", backend, control.clone(), generator).unwrap();
        let model = Arc::new(model);
        config.listen.set_port(0);
        let keys = keys::from_environment("ada:sk-ada,bob:sk-bob").unwrap();
        let gateway = Gateway::with(config, keys, None).unwrap();
        gateway.set_ready(true);
        let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
        let address = server.address();
        let (handle, stop) = StopHandle::new();
        tokio::spawn(server.run(stop));
        let rig = Self {
            control,
            model: Arc::clone(&model),
            gateway,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _stop: handle,
        };
        rig.add("fake", LocalModel::Language(model));
        rig
    }

    /// Serves one more model.
    pub(super) fn add(&self, name: &str, model: LocalModel) {
        let mut deployments = self.gateway.routes().deployments().to_vec();
        deployments.push(Arc::new(Deployment {
            name: name.into(),
            revision: "r1".into(),
            target: model.into(),
            created: 1_700_000_000,
            series: self.gateway.metrics().series(name, "r1"),
            standing: crate::router::Standing::default(),
        }));
        self.gateway.publish(RouteTable::new(deployments).unwrap());
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.client.request(request).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        whole(self.send(Method::GET, path, &[], "").await).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body.to_string()).await
    }

    pub(super) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        whole(self.send(Method::POST, path, &all, body).await).await
    }

    /// Chat about nothing in particular, greedily, with further fields.
    pub(super) async fn chat(&self, extra: Value) -> Answer {
        self.post("/v1/chat/completions", &chat(&extra)).await
    }

    pub(super) async fn complete(&self, extra: Value) -> Answer {
        let base = json!({"model": "fake", "prompt": "Hi", "temperature": 0});
        self.post("/v1/completions", &merged(base, &extra)).await
    }
}

pub(super) fn chat(extra: &Value) -> Value {
    let base = json!({
        "model": "fake", "temperature": 0, "messages": [{"role": "user", "content": "Hi"}],
    });
    merged(base, extra)
}

fn merged(mut base: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

pub(super) async fn whole(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// As JSON, with what differs from run to run made equal.
    pub(super) fn stable(&self) -> Value {
        let mut value = self.json();
        stabilise(&mut value);
        value
    }

    /// The events of a stream without the `[DONE]` that must end it.
    pub(super) fn events(&self) -> Vec<Value> {
        let content_type = &self.headers["content-type"];
        assert_eq!(
            content_type, "text/event-stream; charset=utf-8",
            "{}",
            self.text
        );
        let events = self
            .text
            .strip_suffix("data: [DONE]\n\n")
            .expect("ends with [DONE]");
        events
            .split_terminator("\n\n")
            .map(|event| {
                let mut event =
                    serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
                stabilise(&mut event);
                event
            })
            .collect()
    }

    /// One event a line. How many tokens share an event depends on when they were
    /// ready, so neighbours that only add text are joined.
    pub(super) fn stable_events(&self) -> String {
        let mut events: Vec<Value> = Vec::new();
        for event in self.events() {
            match events.last_mut() {
                Some(last) if adds_text_only(last) && adds_text_only(&event) => join(last, &event),
                _ => events.push(event),
            }
        }
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        lines.join("\n")
    }

    pub(super) fn error(&self) -> Value {
        self.json()["error"].take()
    }
}

/// Where an event holds its text: of a chat, or of a completion.
const TEXT: [&str; 2] = ["/choices/0/delta/content", "/choices/0/text"];

fn adds_text_only(event: &Value) -> bool {
    let choice = &event["choices"][0];
    TEXT.iter().any(|pointer| event.pointer(pointer).is_some())
        && choice["finish_reason"].is_null()
        && choice["logprobs"].is_null()
        && choice["delta"]["role"].is_null()
}

fn join(event: &mut Value, next: &Value) {
    for pointer in TEXT {
        if let (Some(Value::String(text)), Some(Value::String(more))) =
            (event.pointer_mut(pointer), next.pointer(pointer))
        {
            text.push_str(more);
        }
    }
}

/// Concatenates a field of the events' choices: `/delta/content` or `/text`.
pub(super) fn joined(events: &[Value], index: usize, pointer: &str) -> String {
    events
        .iter()
        .flat_map(|event| event["choices"].as_array().unwrap())
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice.pointer(pointer)?.as_str())
        .collect()
}

fn stabilise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &*value) {
                    ("created", Value::Number(_)) => *value = json!(0),
                    ("system_fingerprint", Value::String(_)) => *value = json!("fp_…"),
                    ("id", Value::String(id)) if id.contains(['-', '_']) => {
                        let at = id.find(['-', '_']).unwrap();
                        *value = json!(format!("{}…", &id[..=at]));
                    }
                    _ => stabilise(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(stabilise),
        _ => {}
    }
}
