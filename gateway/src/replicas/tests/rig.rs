//! A server with deployments of fake models, whose loading can be held up.

use std::net::SocketAddr;
use std::sync::Weak;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Condvar;
use serde_json::{Value, json};
use sluice_engine::backend::fake::{FakeControl, FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;
use sluice_engine::language::LanguageModel;

use super::*;
use crate::Gateway;
use crate::config::{Config, DevicesConfig};
use crate::metrics::Format;
use crate::router::{RouteTable, Standing, Target, load};
use crate::server::{Server, StopHandle};

/// `<|im_end|>` of the fake tokenizer.
const END: u32 = 258;
pub(super) const SLOTS: u32 = 2;
/// Steps that fail in a row until an executor is lost.
pub(super) const FAILED_STEPS: u32 = 3;

/// Waits until something is so; fails where it never is.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} did not come about");
}

/// GPUs that a test loses.
#[derive(Debug, Default)]
pub(super) struct Rack {
    lost: Mutex<Vec<u32>>,
    resets: AtomicUsize,
    /// All models ever loaded, by device.
    pub(super) models: Mutex<Vec<(u32, Weak<LanguageModel>)>>,
}

impl Rack {
    pub(super) fn lose(&self, device: u32) {
        self.lost.lock().push(device);
    }

    pub(super) fn resets(&self) -> usize {
        self.resets.load(SeqCst)
    }
}

impl Gpus for Arc<Rack> {
    fn memory(&self, device: u32) -> Result<u64, String> {
        match device {
            0 | 1 => Ok(10 << 30),
            _ => Err(format!("there is no GPU {device}: 2 are there")),
        }
    }

    fn is_lost(&self, device: u32) -> bool {
        self.lost.lock().contains(&device)
    }

    fn reset(&self, device: u32) -> Result<(), String> {
        let models = self.models.lock();
        let alive = models.iter().filter(|(on, _)| *on == device);
        for model in alive.filter_map(|(_, model)| model.upgrade()) {
            assert!(model.generator.closed(), "reset while a model runs there");
        }
        self.resets.fetch_add(1, SeqCst);
        self.lost.lock().retain(|lost| *lost != device);
        Ok(())
    }
}

/// Lets loading go on or not.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn shut(&self) {
        *self.shut.lock() = true;
    }

    pub(super) fn open(&self) {
        *self.shut.lock() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.changed.wait(&mut shut);
        }
    }
}

pub(super) struct Bench {
    pub(super) gateway: Arc<Gateway>,
    pub(super) rack: Arc<Rack>,
    pub(super) devices: Arc<Devices>,
    pub(super) gate: Arc<Gate>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: StopHandle,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

pub(super) fn quick() -> RestartPolicy {
    RestartPolicy {
        restarts: 3,
        window: Duration::from_secs(3600),
        pause: Duration::ZERO,
        pause_max: Duration::ZERO,
    }
}

/// A deployment of fake models and what moves them.
pub(super) struct Fakes {
    pub(super) replicas: Replicas,
    /// One for each device, over all its models.
    pub(super) controls: Vec<FakeControl>,
}

impl Bench {
    pub(super) async fn start() -> Self {
        let mut config = Config::default();
        config.listen.set_port(0);
        let gateway = Gateway::new(config).unwrap();
        gateway.set_ready(true);
        let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
        let address = server.address();
        let (handle, stop) = StopHandle::new();
        tokio::spawn(server.run(stop));
        let rack = Arc::<Rack>::default();
        let devices = Devices::new(Box::new(Arc::clone(&rack)), DevicesConfig::default());
        Self {
            gateway,
            rack,
            devices,
            gate: Arc::default(),
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _stop: handle,
        }
    }

    /// Models that answer "yes", one on each GPU up to `count`; not served yet.
    pub(super) fn fakes(&self, name: &str, count: u32, policy: &RestartPolicy) -> Fakes {
        let controls: Vec<_> = (0..count).map(|_| FakeControl::new()).collect();
        let (steering, rack, gate) = (
            controls.clone(),
            Arc::clone(&self.rack),
            Arc::clone(&self.gate),
        );
        let loader: Loader = Arc::new(move |device| {
            gate.pass();
            let device = device.unwrap();
            let options = FakeOptions {
                slots: SLOTS,
                tokens: FakeTokens::text("yes", END),
                ..FakeOptions::default()
            };
            let generator = GeneratorOptions {
                failed_steps: FAILED_STEPS,
                ..GeneratorOptions::default()
            };
            let control = steering[device as usize].clone();
            let model = Arc::new(LanguageModel::fake_with("m", options, control, generator)?);
            rack.models.lock().push((device, Arc::downgrade(&model)));
            Ok(LocalModel::Language(model))
        });
        let models = (0..count).map(|device| (Some(device), loader(Some(device)).unwrap()));
        let models = models.collect();
        let replicas = Replicas::supervised(name, models, loader, policy, None, &self.devices);
        Fakes { replicas, controls }
    }

    /// Serves one deployment and no other.
    pub(super) fn serve(&self, name: &str, replicas: &Replicas) {
        let target = Target::Local(replicas.clone());
        let deployment = load::make(&self.gateway, name, "r1", target, Standing::default());
        self.gateway
            .publish(RouteTable::new(vec![deployment]).unwrap());
    }

    pub(super) fn serve_nothing(&self) {
        let nothing: Vec<Arc<crate::router::Deployment>> = Vec::new();
        self.gateway.publish(RouteTable::new(nothing).unwrap());
    }

    pub(super) async fn chat(&self, model: &str) -> Answer {
        let body = json!({"model": model, "temperature": 0, "messages": [{"role": "user", "content": "Well?"}]});
        self.post("/v1/chat/completions", &body).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        self.send(request.unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(format!("http://{}{path}", self.address));
        self.send(request.body(Full::default()).unwrap()).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = self.client.request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// The value of one series that has all of these labels.
    pub(super) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self
            .gateway
            .metrics()
            .expose(&self.gateway.routes(), Format::Text);
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|it| line.contains(it))
        });
        let line = line.unwrap_or_else(|| panic!("no {name} with {labels:?} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}
