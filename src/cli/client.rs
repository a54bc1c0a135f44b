//! A small client of our own HTTP interface, shared by the CLI's verbs.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sluice_gateway::remote::client_tls;

use super::events::{Event, EventParser};

/// Where the server is and who is asking; the same options for every verb.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// Base URL of the server.
    #[arg(
        long,
        env = "SLUICE_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    url: String,
    /// API key, when the server asks for one.
    #[arg(
        long,
        env = "SLUICE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    key: Option<String>,
    /// PEM file with the authorities that may vouch for an https server, instead of
    /// the built-in ones.
    #[arg(long, env = "SLUICE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Connections are pooled inside; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    base: String,
    authorization: Option<header::HeaderValue>,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Connecting to a server that is not there should fail while one still looks.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that may turn out to be closed before a stream is given up.
const STREAM_ATTEMPTS: usize = 4;

impl ApiClient {
    /// Checks the options; connects on first use.
    pub(crate) fn new(server: &Server) -> Result<Self> {
        let base = server.url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        if !base.starts_with("http://") && !base.starts_with("https://") {
            bail!(
                "--url must begin with http:// or https://, got `{}`",
                server.url
            );
        }
        let authorization = match &server.key {
            Some(key) => {
                let mut value = header::HeaderValue::try_from(format!("Bearer {key}"))
                    .context("--key holds characters that no header may carry")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls(server.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            base: base.to_owned(),
            authorization,
            http,
        })
    }

    /// `GET path`, a JSON document.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let request = self.request("GET", path).body(Full::default())?;
        read_json(self.send(request).await?).await
    }

    /// `POST path` with a JSON body, a JSON document back.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        read_json(self.send(self.post_request(path, body)?).await?).await
    }

    /// Any method with a JSON body or none; a JSON document back, or null for an answer without a body.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&'static str, &str)],
    ) -> Result<Value> {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method != "GET" {
            // Also without a body: what no web page can send is how a server without
            // authentication knows a program.
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = match body {
            Some(body) => Full::from(serde_json::to_vec(body)?),
            None => Full::default(),
        };
        let request = request.body(body)?;
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        read_json(response).await
    }

    /// `PUT path` with bytes; a JSON document back.
    pub(crate) async fn put(&self, path: &str, body: Bytes, digest: &str) -> Result<Value> {
        let request = self
            .request("PUT", path)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("content-digest", digest)
            .body(Full::from(body))?;
        read_json(self.send(request).await?).await
    }

    /// `GET path`, whose answer is bytes.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Incoming> {
        let request = self.request("GET", path).body(Full::default())?;
        Ok(self.send(request).await?.into_body())
    }

    /// `GET path`, which tells of a record by server-sent events.
    pub(crate) async fn follow(&self, path: &str) -> Result<Events> {
        let request = self.request("GET", path).body(Full::default())?;
        Ok(Events {
            body: self.send(request).await?.into_body(),
            parser: EventParser::of_records(),
        })
    }

    /// `POST path` whose answer comes as server-sent events.
    ///
    /// Asked again when a pooled connection ends without a byte of answer: some servers
    /// (llama.cpp's) promise to keep a connection and close it after each stream, and a
    /// completion asked for twice does no harm.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Result<Events> {
        let request = self.post_request(path, body)?;
        let mut attempt = self.http.request(request.clone()).await;
        for _ in 1..STREAM_ATTEMPTS {
            match &attempt {
                Err(error) if closed_unanswered(error) => {
                    attempt = self.http.request(request.clone()).await;
                }
                _ => break,
            }
        }
        let response = self.check(attempt).await?;
        Ok(Events {
            body: response.into_body(),
            parser: EventParser::default(),
        })
    }

    fn post_request(&self, path: &str, body: &Value) -> Result<Request<Full<Bytes>>> {
        let request = self
            .request("POST", path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(serde_json::to_vec(body)?))?;
        Ok(request)
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        match &self.authorization {
            Some(value) => builder.header(header::AUTHORIZATION, value),
            None => builder,
        }
    }

    /// Sends, and turns an error status into the server's own message.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let outcome = self.http.request(request).await;
        self.check(outcome).await
    }

    async fn check(
        &self,
        outcome: Result<Response<Incoming>, legacy::Error>,
    ) -> Result<Response<Incoming>> {
        let response = outcome.map_err(|error| {
            let cause = root_cause(&error);
            if error.is_connect() && is_tls(&error) {
                anyhow!("{}: {cause} (--ca-file names authorities to trust)", self.base)
            } else if error.is_connect() {
                anyhow!("no server answers at {} ({cause}) — start one with `sluice serve`, or name another with --url", self.base)
            } else {
                anyhow!("the request to {} failed: {cause}", self.base)
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response.into_body().collect().await?.to_bytes();
        Err(Refused {
            status,
            retry_after,
            message: error_message(status, &body),
        }
        .into())
    }
}

/// The server's answer that it will not; any other error of a request is one of the way to the server.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

async fn read_json(response: Response<Incoming>) -> Result<Value> {
    let body = response
        .into_body()
        .collect()
        .await
        .context("the answer broke off")?
        .to_bytes();
    serde_json::from_slice(&body).context("the answer is not JSON")
}

/// The message of OpenAI's error object or of a problem, or else the raw body.
fn error_message(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|value| {
        let message = value["error"]["message"].as_str();
        message.map(str::to_owned).or_else(|| problem(value))
    });
    match message {
        Some(message) => format!("{message} (HTTP {})", status.as_u16()),
        None => format!("HTTP {status}: {}", String::from_utf8_lossy(body).trim()),
    }
}

/// The control plane's form (RFC 9457): the detail, then whatever else helps.
fn problem(value: &Value) -> Option<String> {
    let mut text = value["detail"].as_str()?.to_owned();
    let errors = value["errors"].as_array().into_iter().flatten();
    for error in errors {
        let (field, message) = (error["field"].as_str()?, error["message"].as_str()?);
        if !text.contains(message) {
            text.push_str(&format!("\n  {field}: {message}"));
        }
    }
    Some(text)
}

/// Whether a connection was made and TLS failed on it: the error then is no error of
/// the system.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut io = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|error| matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Other))
}

/// Whether the connection ended before any answer came.
fn closed_unanswered(error: &legacy::Error) -> bool {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
        let hyper = cause.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
    }
    false
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The JSON documents of a server-sent event stream, in order.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    parser: EventParser,
}

impl Events {
    /// The next event's JSON; `None` after `[DONE]` or the end of the body.
    ///
    /// # Errors
    /// The connection broke, or the server sent an error event.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            match self.parser.next()? {
                Some(Event::Json(value)) => return Ok(Some(value)),
                // Read to its end: a connection with unread bytes cannot be used again.
                Some(Event::Done) => {}
                None => match self.body.frame().await {
                    Some(frame) => {
                        if let Ok(bytes) = frame.context("the stream broke off")?.into_data() {
                            self.parser.push(&bytes);
                        }
                    }
                    None => return self.last(),
                },
            }
        }
    }

    fn last(&mut self) -> Result<Option<Value>> {
        Ok(match self.parser.finish()? {
            Some(Event::Json(value)) => Some(value),
            Some(Event::Done) | None => None,
        })
    }
}
