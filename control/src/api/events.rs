//! Watching a record: server-sent events that go on where a lost connection left off (`Last-Event-ID`).
//!
//! A watch looks at the database whenever something changed in this process, and twice a second for what other
//! processes do; so it sees everything, whoever wrote it. It ends with the record's story, or when
//! the server stops.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;

use super::problem::Problem;
use crate::control::Control;
use crate::store::StoreError;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Something is sent this often, so that neither side takes the connection for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// An event as it is sent.
pub(super) struct Event(String);

impl Event {
    /// `id` is what a client may go on after.
    pub(super) fn new(id: Option<i64>, name: &str, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data).unwrap_or_default();
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        Self(format!("{id}event: {name}\ndata: {data}\n\n"))
    }
}

/// How far a watcher is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The last event that has an id.
    pub event: i64,
    /// The record's version.
    pub version: i64,
}

/// What one look found.
pub(super) struct Batch {
    pub news: Vec<Event>,
    /// Nothing more will happen.
    pub over: bool,
    /// There is more to be found right away.
    pub more: bool,
    pub version: i64,
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Result<i64, Problem> {
    match headers.get("last-event-id") {
        None => Ok(0),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Problem::bad_request("Last-Event-ID: should be the id of an event")),
    }
}

struct Watch<L> {
    control: Control,
    look: L,
    seen: Seen,
    over: bool,
    silent: Duration,
    /// Whether to look at once: it is the first look, or the last one did not find all.
    at_once: bool,
}

/// An answer that calls `look` again and again and sends what it finds.
pub(super) fn stream<L, F>(control: &Control, last: i64, look: L) -> Response
where
    L: Fn(Seen) -> F + Send + 'static,
    F: Future<Output = Result<Batch, StoreError>> + Send + 'static,
{
    let watch = Watch {
        control: control.clone(),
        look,
        seen: Seen {
            event: last,
            version: 0,
        },
        over: false,
        silent: Duration::ZERO,
        at_once: true,
    };
    let chunks = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, Infallible>(chunk), watch))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<L, F> Watch<L>
where
    L: Fn(Seen) -> F,
    F: Future<Output = Result<Batch, StoreError>>,
{
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over || self.control.is_stopping() {
                return None;
            }
            if !std::mem::take(&mut self.at_once) {
                self.wait().await;
            }
            match (self.look)(self.seen).await {
                Ok(batch) => {
                    self.over = batch.over;
                    self.at_once = batch.more;
                    self.seen.version = batch.version;
                    if !batch.news.is_empty() {
                        self.silent = Duration::ZERO;
                        return Some(self.joined(&batch.news));
                    }
                }
                // The watcher asks again; what it has seen is in its Last-Event-ID.
                Err(error) if !error.is_retryable() => return None,
                Err(_) => {}
            }
            if self.silent >= SIGN_OF_LIFE {
                self.silent = Duration::ZERO;
                return Some(Bytes::from_static(b": still here\n\n"));
            }
        }
    }

    async fn wait(&mut self) {
        let mut changes = self.control.changes();
        // A change of this process, or the time to look for those of others.
        let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
        self.silent += LOOK_EVERY;
    }

    fn joined(&mut self, news: &[Event]) -> Bytes {
        let mut text = String::new();
        for Event(event) in news {
            if let Some(id) = event
                .strip_prefix("id: ")
                .and_then(|rest| rest.split('\n').next()?.parse().ok())
            {
                self.seen.event = id;
            }
            text.push_str(event);
        }
        text.into()
    }
}
