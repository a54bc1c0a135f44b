//! Prompt versions rendered by a child: a template is as much a program of strangers as a model is, and one step of it
//! may double a text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::{Ended, Shared};
use crate::evaluation::prompt::{MessageTemplate, Prompt, PromptLimits};
use crate::evaluation::sample::Message;

/// Renders prompts for one run.
pub trait Renders: std::fmt::Debug + Send + Sync {
    /// The messages of each row, or what is wrong with the row or the template.
    fn render<'a>(&'a self, asked: &'a Rows<'a>) -> BoxFuture<'a, Result<Rendered, Ended>>;
}

/// One prompt version and some rows.
#[derive(Debug, Serialize)]
pub struct Rows<'a> {
    pub templates: &'a [MessageTemplate],
    pub limits: PromptLimits,
    pub rows: Vec<(&'a str, &'a Map<String, Value>)>,
}

/// In the order of the rows.
pub type Rendered = Vec<Result<Vec<Message>, String>>;

/// The same as the child reads it.
#[derive(Debug, Deserialize)]
struct Asked {
    templates: Vec<MessageTemplate>,
    limits: PromptLimits,
    rows: Vec<(String, Map<String, Value>)>,
}

/// Bytes of one question to a child, and of its answer.
const MOST: usize = 256 << 20;

/// A child that renders.
#[derive(Debug)]
pub(super) struct ChildRenderer {
    socket: PathBuf,
    held: Shared,
}

impl ChildRenderer {
    pub(super) fn new(socket: &Path, held: Shared) -> Self {
        Self {
            socket: socket.to_owned(),
            held,
        }
    }

    async fn ask(&self, body: Vec<u8>) -> Result<Rendered, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let socket = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| text(&error))?;
        let connected = http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = connected.map_err(|error| text(&error))?;
        let driven = tokio::spawn(connection);
        let request = Request::post("/render")
            .header(http::header::HOST, "model-host")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| text(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| text(&error))?;
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        let body = body.map_err(|error| text(&error))?.to_bytes();
        driven.abort();
        serde_json::from_slice(&body).map_err(|error| text(&error))
    }
}

impl Renders for ChildRenderer {
    fn render<'a>(&'a self, asked: &'a Rows<'a>) -> BoxFuture<'a, Result<Rendered, Ended>> {
        async move {
            let body = serde_json::to_vec(asked).unwrap_or_default();
            tokio::select! {
                biased;
                ended = self.held.ended() => Err(ended),
                answer = self.ask(body) => match answer {
                    Ok(rendered) => Ok(rendered),
                    // Its end is seen a moment later than its connections'.
                    Err(why) => Err(self.held.ended_or(&why).await),
                },
            }
        }
        .boxed()
    }
}

/// Renders in this process: what the child does with a question.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HereRenderer;

#[cfg(test)]
impl Renders for HereRenderer {
    fn render<'a>(&'a self, asked: &'a Rows<'a>) -> BoxFuture<'a, Result<Rendered, Ended>> {
        let rows = asked.rows.iter().copied();
        let rendered = render(asked.templates.to_vec(), asked.limits, rows);
        async move { Ok(rendered) }.boxed()
    }
}

fn render<'a>(
    templates: Vec<MessageTemplate>,
    limits: PromptLimits,
    rows: impl Iterator<Item = (&'a str, &'a Map<String, Value>)>,
) -> Rendered {
    let prompt = Prompt::compile(templates, limits).map_err(|error| error.to_string());
    rows.map(|(item, columns)| {
        let prompt = prompt.as_ref().map_err(Clone::clone)?;
        prompt
            .render(item, columns)
            .map_err(|error| error.to_string())
    })
    .collect()
}

/// The child's answer to one request.
pub async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answered = async {
        let body = Limited::new(request.into_body(), MOST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let asked: Asked = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let rendering = move || {
            let rows = asked.rows.iter().map(|(item, columns)| (&**item, columns));
            render(asked.templates, asked.limits, rows)
        };
        let rendered = tokio::task::spawn_blocking(rendering).await;
        let rendered = rendered.map_err(|error| error.to_string())?;
        serde_json::to_vec(&rendered).map_err(|error| error.to_string())
    };
    let (status, body) = match answered.await {
        Ok(body) => (StatusCode::OK, body),
        Err(why) => (StatusCode::BAD_REQUEST, why.into_bytes()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// A run's renderer, shared by all that asks.
pub type SharedRenderer = Arc<dyn Renders>;
