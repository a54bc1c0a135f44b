//! A gateway with the control plane behind it, and people with keys.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sluice_gateway::Gateway;
use sluice_gateway::auth::{KeyEntry, keys};
use sluice_gateway::config::{AllowConfig, Config};
use sluice_gateway::server::{Server, StopHandle};

use crate::artifacts::{ArtifactSettings, Artifacts};
use crate::control::{Control, ControlSettings, Open};
use crate::domain::record::{Department, Principal, Scope};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, PrincipalId};
use crate::store::Store;
use crate::store::rig::system;

pub(super) struct Rig {
    pub store: Store,
    pub open: Open,
    address: SocketAddr,
    gateway: Arc<Gateway>,
    http: Client<HttpConnector, Full<Bytes>>,
    stop: StopHandle,
    data: tempfile::TempDir,
}

#[derive(Clone)]
pub(super) struct Person {
    pub id: PrincipalId,
    pub key: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answered {
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    pub(super) fn text(&self) -> String {
        self.body.to_string()
    }
}

impl Rig {
    pub(super) async fn start(store: &Store) -> Self {
        Self::with(store, false).await
    }

    /// `open`: without authentication.
    pub(super) async fn with(store: &Store, open: bool) -> Self {
        Self::of(store, open, root_and_plain(), AllowConfig::default()).await
    }

    /// With what records may name.
    pub(super) async fn allowing(store: &Store, upstreams: &[&str], env: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let allow = AllowConfig {
            upstreams: owned(upstreams),
            env: owned(env),
            ..AllowConfig::default()
        };
        Self::of(store, false, root_and_plain(), allow).await
    }

    /// With these keys in the keys file.
    pub(super) async fn with_keys(store: &Store, entries: Vec<KeyEntry>) -> Self {
        Self::of(store, false, entries, AllowConfig::default()).await
    }

    /// The keys file is another from now on.
    pub(super) fn replace_file_keys(&self, entries: Vec<KeyEntry>) {
        self.gateway.replace_file_keys(entries).unwrap();
    }

    async fn of(store: &Store, open: bool, entries: Vec<KeyEntry>, allow: AllowConfig) -> Self {
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..Config::default()
        };
        config.control.allow = allow.clone();
        config.auth.required = !open;
        config.server.drain_grace = std::time::Duration::ZERO;
        let gateway = Gateway::with(config, entries, None).unwrap();
        let data = tempfile::tempdir().unwrap();
        let settings = ControlSettings {
            open,
            pipelines: Some(data.path().join("pipelines")),
            allow,
            ..ControlSettings::default()
        };
        let mut artifacts = ArtifactSettings::default();
        artifacts.upload.max_part_bytes = 4 << 20;
        artifacts.upload.part_bytes = 2 << 20;
        artifacts.import.folders = vec![data.path().join("import")];
        let artifacts = Artifacts::open(store.clone(), artifacts, data.path()).unwrap();
        let open = Open::new(store.clone(), artifacts);
        let control = Control::opened(open.clone(), settings);
        control.set_gateway(Arc::clone(&gateway));
        gateway.set_control(crate::api::service(&control));
        let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
        let address = server.address();
        let (stop, stopped) = StopHandle::new();
        tokio::spawn(server.run(stopped));
        Self {
            store: store.clone(),
            open,
            address,
            gateway,
            http: Client::builder(TokioExecutor::new()).build_http(),
            stop,
            data,
        }
    }

    pub(super) async fn department(&self, name: &str) -> DepartmentId {
        let department = Department {
            name: name.into(),
            description: String::new(),
        };
        self.store.create(&system(), department).await.unwrap().id
    }

    pub(super) async fn person(
        &self,
        department: DepartmentId,
        name: &str,
        role: Role,
        clearance: Secrecy,
    ) -> Person {
        let person = Principal {
            department,
            name: name.into(),
            email: None,
            role,
            clearance,
            disabled: false,
            file_key: None,
        };
        let id = self.store.create(&system(), person).await.unwrap().id;
        let key = self.key(id, Scope::ALL).await;
        Person { id, key }
    }

    pub(super) async fn key(&self, whose: PrincipalId, scopes: &[Scope]) -> String {
        let issued = self
            .store
            .issue_key(&system(), whose, "test", scopes.to_vec(), None)
            .await
            .unwrap();
        issued.secret
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Sends to a path of the whole server, `/api/v1` or not.
    pub(super) async fn send_to(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answered {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::from(body)).unwrap();
        let (parts, body) = self.http.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body: match serde_json::from_slice(&bytes) {
                Ok(value) => value,
                Err(_) => json!(String::from_utf8_lossy(&bytes)),
            },
        }
    }

    /// The head of an answer whose body may never end.
    pub(super) async fn head(&self, key: &str, path: &str) -> Answered {
        let request = Request::builder()
            .uri(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::default())
            .unwrap();
        let (parts, _) = self.http.request(request).await.unwrap().into_parts();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body: json!(null),
        }
    }

    pub(super) async fn send(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answered {
        let mut headers = headers.to_vec();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answered = self
            .send_bytes(key, method, path, body.into(), &headers)
            .await;
        Answered {
            status: answered.0,
            headers: answered.1,
            body: match serde_json::from_slice(&answered.2) {
                Ok(value) => value,
                Err(_) => json!(String::from_utf8_lossy(&answered.2)),
            },
        }
    }

    pub(super) async fn send_bytes(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v1{path}", self.address));
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        let (parts, body) = self.http.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, bytes)
    }

    /// Reads an answer that may break off.
    pub(super) async fn try_get(&self, key: &str, path: &str) -> Result<Bytes, hyper::Error> {
        let request = Request::builder()
            .uri(format!("http://{}/api/v1{path}", self.address))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::default())
            .unwrap();
        let answer = self.http.request(request).await.unwrap();
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    /// The data directory, with `import` and `pipelines` in it.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(super) async fn get(&self, key: &str, path: &str) -> Answered {
        self.send(key, "GET", path, None, &[]).await
    }

    pub(super) async fn post(&self, key: &str, path: &str, body: Value) -> Answered {
        self.send(key, "POST", path, Some(body), &[]).await
    }

    pub(super) async fn patch(&self, key: &str, path: &str, body: Value) -> Answered {
        self.send(key, "PATCH", path, Some(body), &[]).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.request();
        self.stop.request();
    }
}

/// The keys file that most tests have: an administrator, and a key without rights in the control plane.
fn root_and_plain() -> Vec<KeyEntry> {
    let mut entries = keys::from_environment("root:sk-root,plain:sk-plain").unwrap();
    entries[0].role = Some(Arc::from("admin"));
    entries[0].rights = sluice_gateway::access::Rights::unlimited();
    entries
}

/// What a percent-encoded path or query holds.
pub(super) fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
