//! The bytes of an artifact's files, checked on the way out.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{Stream, TryStreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::call::{Call, NoBody, NoQuery};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::artifacts::{ArtifactError, File};
use crate::domain::record::Artifact;
use crate::domain::roles::Verb;

pub(crate) fn serve_all(api: &mut Registry) {
    api.raw(
        get(
            "/artifacts/{id}/files/{*path}",
            Verb::View,
            "Download a file of an artifact, or a Range of it",
        ),
        download,
    );
}

/// A file that turns out damaged ends in a broken connection, never in bytes that pass for whole. A range that ends
/// before the file does is not checked by us; `Repr-Digest` says what the whole should have.
async fn download(call: Call<NoQuery, NoBody>, headers: HeaderMap) -> Result<Response, Problem> {
    let artifact = call.desk.find::<Artifact>(call.segment("id")).await?;
    let path = call.segment("path");
    let artifacts = &call.desk.open()?.artifacts;
    let file = artifacts
        .file(artifact.id, path)
        .await?
        .ok_or_else(|| Problem::not_found("file", path))?;
    let tag = format!("\"{}\"", file.digest);
    let range = wanted(&headers, &tag, file.bytes);
    let (status, start, length) = match range {
        Wanted::Whole => (StatusCode::OK, 0, file.bytes),
        Wanted::Part { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Wanted::Nothing => return Ok(out_of_range(&file)),
    };
    let bytes = window(
        artifacts.read(file.digest).await?,
        start,
        length,
        file.bytes,
    );
    let mut response = Response::new(Body::from_stream(bytes));
    *response.status_mut() = status;
    let heads = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        // Nobody's browser should take an artifact for a page of ours.
        (header::CONTENT_DISPOSITION, "attachment".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ETAG, tag),
        (
            header::HeaderName::from_static("repr-digest"),
            file.digest.structured(),
        ),
    ] {
        insert(heads, name, &value);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let last = start + length - 1;
        let value = format!("bytes {start}-{last}/{}", file.bytes);
        insert(heads, header::CONTENT_RANGE, &value);
    }
    Ok(response)
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn out_of_range(file: &File) -> Response {
    use axum::response::IntoResponse as _;
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "out_of_range",
        format!("Range: the file has {} bytes", file.bytes),
    );
    let mut response = problem.into_response();
    let value = format!("bytes */{}", file.bytes);
    insert(response.headers_mut(), header::CONTENT_RANGE, &value);
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part { start: u64, length: u64 },
    Nothing,
}

/// What `Range` and `If-Range` ask for of a file of `bytes` bytes. Several ranges at once, and what is no range, are
/// answered by the whole, as RFC 9110 allows.
fn wanted(headers: &HeaderMap, tag: &str, bytes: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Wanted::Whole;
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (from.trim(), to.trim()) {
        ("", _) => match number(to) {
            Some(0) => return Wanted::Nothing,
            Some(last) => (bytes.saturating_sub(last), bytes),
            None => return Wanted::Whole,
        },
        (_, "") => match number(from) {
            Some(start) => (start, bytes),
            None => return Wanted::Whole,
        },
        _ => match (number(from), number(to)) {
            (Some(start), Some(last)) if start <= last => {
                (start, last.saturating_add(1).min(bytes))
            }
            _ => return Wanted::Whole,
        },
    };
    if start >= bytes {
        return Wanted::Nothing;
    }
    Wanted::Part {
        start,
        length: end - start,
    }
}

/// A stream of which a part is given.
struct Window<S> {
    pieces: S,
    skip: u64,
    left: u64,
    /// Whether it reaches to the end of the stream, where that tells if the bytes were right.
    checked: bool,
    /// The newest piece is held back until it is known to be no damaged end: whoever counts bytes must not get to
    /// the last of them.
    held: Option<Bytes>,
}

/// `length` bytes from `start` of a stream of `whole` bytes.
fn window(
    pieces: impl Stream<Item = Result<Bytes, ArtifactError>> + Send + 'static,
    start: u64,
    length: u64,
    whole: u64,
) -> impl Stream<Item = Result<Bytes, ArtifactError>> + Send + 'static {
    let window = Window {
        pieces: Box::pin(pieces),
        skip: start,
        left: length,
        checked: start + length == whole,
        held: None,
    };
    try_unfold(window, |mut window| async move {
        while window.left > 0 || window.checked {
            let Some(piece) = window.pieces.try_next().await? else {
                break;
            };
            let piece = window.cut(&piece);
            if piece.is_empty() {
                continue;
            }
            if let Some(ready) = window.held.replace(piece) {
                return Ok(Some((ready, window)));
            }
        }
        Ok(window.held.take().map(|last| {
            (window.left, window.checked) = (0, false);
            (last, window)
        }))
    })
}

impl<S> Window<S> {
    /// What of the next piece lies in the window.
    fn cut(&mut self, piece: &Bytes) -> Bytes {
        let length = piece.len() as u64;
        let from = self.skip.min(length);
        let to = length.min(from.saturating_add(self.left));
        self.skip -= from;
        self.left -= to - from;
        // Both are at most the length of what is in memory.
        piece.slice(from as usize..to as usize)
    }
}

#[cfg(test)]
mod tests;
