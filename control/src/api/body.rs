//! Bodies that are bytes: read piece by piece, and dealt with also where nobody wants them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;

use crate::artifacts::ArtifactError;

/// How long a body that is not wanted is still read.
const DISCARD: Duration = Duration::from_secs(5);

/// Reads a body for a while and throws it away, so that a client that sends before it reads sees the answer.
pub(super) async fn discard(mut body: Body) {
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever sends longer than that finds the connection closed.
    _ = tokio::time::timeout(DISCARD, read).await;
}

/// What a client sends, as it comes. What is left of it when this is dropped is thrown away.
#[derive(Debug)]
pub(crate) struct Sent {
    body: Option<BodyDataStream>,
}

impl Sent {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body: Some(body.into_data_stream()),
        }
    }
}

impl Stream for Sent {
    type Item = Result<Bytes, ArtifactError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let piece = std::task::ready!(body.poll_next_unpin(context));
        if piece.is_none() {
            self.body = None;
        }
        Poll::Ready(piece.map(|piece| {
            piece.map_err(|_| ArtifactError::Interrupted("the body broke off".into()))
        }))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(rest) = self.body.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(discard(Body::from_stream(rest)));
        }
    }
}
