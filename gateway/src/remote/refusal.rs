//! An upstream's refusal or failure, told to a client: the status as it is, in OpenAI's form, and
//! nothing about the inside.

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::Value;

use super::headers::{self, Passing};
use crate::Body;
use crate::error::ApiError;
use crate::validate::scrub::Scrub;

/// Bytes of a refusal that are read at most; a longer one is told in our own words.
pub(super) const MAX_REFUSAL: usize = 64 << 10;

/// Characters of a message that are passed on.
const MAX_MESSAGE: usize = 4000;

/// Whether a refusal is about the fields by which the usage of a stream is asked for, which old
/// servers do not know.
pub(super) fn is_about_usage(status: StatusCode, text: &[u8]) -> bool {
    let names = |name: &[u8]| memchr::memmem::find(text, name).is_some();
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
    ) && (names(b"stream_options") || names(b"include_usage"))
}

/// Whether a status is about our own account there: nothing of it concerns the client.
pub(super) fn is_of_our_account(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

/// The client's response. `text` is `None` where it could not be read.
pub(super) fn respond(
    mut head: Parts,
    text: Option<Bytes>,
    scrub: Option<&Scrub>,
    asked: Option<&str>,
    passing: &Passing,
) -> Response<Body> {
    passing.clean(&mut head.headers);
    let text = match head.status.is_server_error() && scrub.is_some() {
        // What has failed there is told to those who run it, in its own log.
        true => None,
        false => text,
    };
    let told = text.as_deref().and_then(|text| in_form(text, scrub, asked));
    let mut response = match told {
        Some(Told::Form(body)) => {
            let mut response = Response::new(crate::full(body));
            *response.status_mut() = head.status;
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Some(Told::Message(message)) => ApiError::of_upstream(head.status, message).into_response(),
        None => ApiError::of_upstream(head.status, ours(head.status)).into_response(),
    };
    merge(response.headers_mut(), &head.headers);
    response
}

/// What an upstream has said.
enum Told {
    /// In OpenAI's form.
    Form(Vec<u8>),
    /// In another, of which this is the message.
    Message(String),
}

fn in_form(text: &[u8], scrub: Option<&Scrub>, asked: Option<&str>) -> Option<Told> {
    let mut said: Value = serde_json::from_slice(text).ok()?;
    let changed = scrub.is_some_and(|scrub| scrub.value(&mut said, asked));
    if said["error"].is_object() {
        return Some(Told::Form(match changed {
            true => said.to_string().into_bytes(),
            false => text.to_vec(),
        }));
    }
    let message = [
        &said["error"],
        &said["message"],
        &said["detail"],
        &said["detail"][0]["msg"],
    ]
    .into_iter()
    .find_map(Value::as_str)?;
    Some(Told::Message(message.chars().take(MAX_MESSAGE).collect()))
}

/// In our own words.
fn ours(status: StatusCode) -> &'static str {
    match status {
        StatusCode::GATEWAY_TIMEOUT => "The upstream did not answer in time.",
        StatusCode::SERVICE_UNAVAILABLE => "The upstream is unavailable at the moment.",
        StatusCode::TOO_MANY_REQUESTS => "The upstream takes no more requests at the moment.",
        status if status.is_server_error() => "The upstream failed while it was answering.",
        _ => "The upstream refused the request.",
    }
}

/// Adds an upstream's headers, but for those that describe a body which is ours now.
fn merge(headers: &mut HeaderMap, theirs: &HeaderMap) {
    for (name, value) in theirs {
        if !headers::describes_body(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use http_body_util::BodyExt as _;

    use super::*;

    async fn told(status: u16, text: Option<&str>) -> (StatusCode, HeaderMap, String) {
        let head = Response::builder()
            .status(status)
            .header("content-type", "text/html")
            .header("content-length", "3")
            .header("retry-after", "7")
            .header("x-internal-host", "vllm-0")
            .header("server", "uvicorn")
            .header("www-authenticate", "Bearer realm=\"10.0.0.5\"");
        let (head, ()) = head.body(()).unwrap().into_parts();
        let scrub = Scrub::new(["vllm-0:8000"].into_iter(), Some("hunter2"), Some("theirs"));
        let text = text.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let passing = Passing::new(&[]);
        let response = respond(head, text, Some(&scrub), Some("ours"), &passing);
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (head.status, head.headers, body)
    }

    #[tokio::test]
    async fn every_refusal_comes_in_openais_form_and_tells_nothing_of_the_inside() {
        let form = r#"{"error":{"message":"n must be 1","type":"x","param":"n","code":7}}"#;
        for (status, text, message) in [
            (400, Some(form), "n must be 1"),
            (
                400,
                Some(r#"{"object":"error","message":"too long"}"#),
                "too long",
            ),
            (
                422,
                Some(r#"{"detail":[{"msg":"field required"}]}"#),
                "field required",
            ),
            (404, Some(r#"{"detail":"Not Found"}"#), "Not Found"),
            (413, Some(r#"{"error":"batch"}"#), "batch"),
            (
                404,
                Some(r#"{"error":{"message":"no `theirs` at vllm-0:8000"}}"#),
                "no `ours` at [upstream]",
            ),
            (
                429,
                Some("<html>slow down</html>"),
                "The upstream takes no more requests at the moment.",
            ),
            (400, None, "The upstream refused the request."),
            (
                500,
                Some(r#"{"error":{"message":"hunter2 at 10.0.0.5"}}"#),
                "The upstream failed while it was answering.",
            ),
            (503, None, "The upstream is unavailable at the moment."),
        ] {
            let (found, headers, body) = told(status, text).await;
            let json: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json["error"]["message"], message, "{body}");
            assert_eq!(found, status);
            assert_eq!(headers["retry-after"], "7");
            assert_eq!(headers["content-type"], "application/json");
            let kept: Vec<_> = headers.keys().map(|it| it.as_str().to_owned()).collect();
            assert_eq!(kept.len(), 2, "{kept:?}");
        }
        // What is in order passes byte by byte.
        assert_eq!(told(400, Some(form)).await.2, form);
    }

    #[test]
    fn a_server_that_does_not_know_the_field_says_so() {
        let about = |status, text: &str| {
            is_about_usage(StatusCode::from_u16(status).unwrap(), text.as_bytes())
        };
        assert!(about(
            400,
            "Unrecognized request argument supplied: stream_options"
        ));
        assert!(about(
            422,
            "body.stream_options.include_usage: extra fields not permitted"
        ));
        assert!(!about(400, "max_tokens is too large"));
        assert!(!about(500, "stream_options"));
    }
}
