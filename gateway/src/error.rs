//! The one error that a client sees, in OpenAI's form.
//!
//! Every failure of the data plane becomes an [`ApiError`]; nothing else is
//! turned into an error response. `type` and `code` are OpenAI's own words, so
//! that clients which branch on them behave as they do with OpenAI.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use sluice_engine::SubmitError;

use crate::remote::ForwardError;
use crate::router::RouteError;
use crate::{Body, full};

mod later;
pub(crate) mod problem;
#[cfg(test)]
mod tests;

/// `{"error":{"message","type","param","code"}}` and the status it goes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<Cow<'static, str>>,
    message: String,
    retry_after: Option<Duration>,
    /// What goes with the status as a header: the methods or encodings that are taken.
    taken: Option<&'static str>,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateLimit {
    /// Requests in a window.
    Requests,
    /// Tokens in a window.
    Tokens,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UNAVAILABLE: &str = "unavailable";

/// The least that `Retry-After` says: it counts whole seconds, and 0 invites a
/// tight loop.
const MIN_RETRY: Duration = Duration::from_secs(1);

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            taken: None,
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Names the field at fault, as a path: `messages[2].content`.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// 400 with one of OpenAI's codes, without a field.
    #[must_use]
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message).code(code)
    }

    /// 400: the body is not JSON, or not an object.
    #[must_use]
    pub fn malformed(reason: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID,
            format!("We could not parse the JSON body of your request: {reason}"),
        )
    }

    /// 400: a field has a value that it cannot have.
    #[must_use]
    pub fn invalid_value(param: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", reason).with_param(param)
    }

    /// 400: a field or value that OpenAI knows and this server or model does not.
    #[must_use]
    pub fn unsupported(param: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", reason).with_param(param)
    }

    /// 400: a field that must be there is not.
    #[must_use]
    pub fn missing(param: impl Into<Cow<'static, str>>) -> Self {
        let param = param.into();
        Self::bad_request(
            "missing_required_parameter",
            format!("Missing required parameter: '{param}'."),
        )
        .with_param(param)
    }

    /// 400: prompt, or prompt and the tokens asked for, exceed the context.
    #[must_use]
    pub fn context_length(
        param: impl Into<Cow<'static, str>>,
        prompt: usize,
        requested: usize,
        limit: usize,
    ) -> Self {
        let param = param.into();
        let completion = requested.saturating_sub(prompt);
        let message = if completion == 0 {
            format!(
                "This model's maximum context length is {limit} tokens. However, your {param} \
                 resulted in {prompt} tokens. Please reduce the length of the {param}."
            )
        } else {
            format!(
                "This model's maximum context length is {limit} tokens. However, you requested \
                 {requested} tokens ({prompt} in the {param}, {completion} in the completion). \
                 Please reduce the length of the {param} or completion."
            )
        };
        Self::bad_request("context_length_exceeded", message).with_param(param)
    }

    /// 401: no API key came with the request.
    #[must_use]
    pub fn missing_api_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            INVALID,
            "You didn't provide an API key. Send it in the Authorization header: \
             `Authorization: Bearer YOUR_KEY`.",
        )
    }

    /// 401: the API key is unknown, expired or revoked. The key is not repeated.
    #[must_use]
    pub fn invalid_api_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            INVALID,
            "Incorrect API key provided.",
        )
        .code("invalid_api_key")
    }

    /// 403: the request may come from a web page that has no business here.
    #[must_use]
    pub fn foreign(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID, message).code(code)
    }

    /// 404: no such deployment, or not for this key.
    #[must_use]
    pub fn model_not_found(model: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            format!(
                "The model `{}` does not exist or you do not have access to it.",
                shorten(model)
            ),
        )
        .code("model_not_found")
        .with_param("model")
    }

    /// 404: nothing lives at this path.
    #[must_use]
    pub fn unknown_url(method: &Method, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            format!("Invalid URL ({method} {})", shorten(path)),
        )
    }

    /// 405: the path exists, the method does not. `allow` lists those that do.
    #[must_use]
    pub fn method_not_allowed(method: &Method, path: &str, allow: &'static str) -> Self {
        let mut error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            INVALID,
            format!(
                "Not allowed to {method} on {}. \
                 (HINT: Perhaps you meant to use a different HTTP method?)",
                shorten(path)
            ),
        );
        error.taken = Some(allow);
        error.code("method_not_supported")
    }

    /// 408: the client did not send its body in time.
    #[must_use]
    pub fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            INVALID,
            "The request body did not arrive in time.",
        )
        .code("request_timeout")
    }

    /// 413: the body is larger than the server takes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID,
            format!("The request body is larger than the {limit} bytes that this server takes."),
        )
        .code("request_too_large")
    }

    /// 415: the body says that it is something else than JSON.
    #[must_use]
    pub fn content_type(found: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            format!(
                "Invalid 'Content-Type': expected 'application/json', but got '{}'.",
                shorten(found)
            ),
        )
        .code("unsupported_content_type")
    }

    /// 415: the body is compressed.
    #[must_use]
    pub fn content_encoding(found: &str) -> Self {
        let mut error = Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            format!(
                "Invalid 'Content-Encoding': request bodies are read uncompressed only, but got \
                 '{}'.",
                shorten(found)
            ),
        );
        error.taken = Some("identity");
        error.code("unsupported_content_encoding")
    }

    /// 429: the key's rate is used up.
    #[must_use]
    pub fn rate_limited(
        limit: RateLimit,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        let kind = match limit {
            RateLimit::Requests => "requests",
            RateLimit::Tokens => "tokens",
        };
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message);
        error.retry_after = Some(retry_after);
        error.code("rate_limit_exceeded")
    }

    /// 500: our fault. The message must hold nothing of the request.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message).code("internal_error")
    }

    /// 502: an upstream could not be reached.
    #[must_use]
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, SERVER, message).code("upstream_error")
    }

    /// What an upstream answered in place of an answer, under its status.
    #[must_use]
    pub(crate) fn of_upstream(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status.is_server_error() {
            true => SERVER,
            false => INVALID,
        };
        Self::new(status, kind, message).code("upstream_error")
    }

    /// 503: more work than fits; the same request may succeed after `retry_after`.
    #[must_use]
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message);
        error.retry_after = Some(retry_after);
        error.code("overloaded")
    }

    /// 503: the model or server is draining, loading or broken.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message);
        error.retry_after = Some(MIN_RETRY);
        error.code(UNAVAILABLE)
    }

    /// 504: the deadline passed before the answer began.
    #[must_use]
    pub fn deadline() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            SERVER,
            "The request's deadline passed before it was answered.",
        )
        .code("timeout")
    }

    /// The one mapping from the engine's refusals. `prompt_field` is the field
    /// that holds what was too long: `messages`, `prompt` or `input`.
    #[must_use]
    pub fn from_submit(error: SubmitError, prompt_field: &'static str) -> Self {
        match error {
            SubmitError::TooLong {
                prompt,
                requested,
                limit,
            } => Self::context_length(prompt_field, prompt, requested, limit),
            SubmitError::Invalid { param, message } => Self::invalid_value(param, message),
            SubmitError::QueueFull { retry_after, .. } => Self::overloaded(
                format!("The engine is currently overloaded, please try again later: {error}"),
                retry_after,
            ),
            SubmitError::DeadlineUnmeetable { expected_wait } => Self::overloaded(
                format!("The request was not started: {error}"),
                expected_wait,
            ),
            SubmitError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong and what would be right.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field at fault.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// `{"error":{…}}`, also sent as an event when a stream has begun.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Fields<'a>,
        }
        #[derive(Serialize)]
        struct Fields<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let envelope = Envelope {
            error: Fields {
                message: &self.message,
                r#type: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        serde_json::to_string(&envelope).unwrap_or_else(|_| r#"{"error":{}}"#.to_owned())
    }

    /// The response, with `Retry-After` where a retry may help.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(full(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.max(MIN_RETRY).as_secs_f64().ceil() as u64;
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let taken = self.taken.map(HeaderValue::from_static);
        match (self.status, taken) {
            (StatusCode::METHOD_NOT_ALLOWED, Some(methods)) => {
                headers.insert(ALLOW, methods);
            }
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(encodings)) => {
                headers.insert(ACCEPT_ENCODING, encodings);
            }
            _ => {}
        }
        let made_of = problem::MadeOf(Arc::new(self));
        response.extensions_mut().insert(made_of);
        response
    }
}

/// What the client sent is repeated at most this long.
const SHOWN: usize = 120;

/// The beginning of a client's string, for a message.
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::NoUpstream => Self::unavailable(error.to_string()),
            ForwardError::Unreachable(_) | ForwardError::Denied => {
                Self::bad_gateway(error.to_string())
            }
            ForwardError::Timeout | ForwardError::Deadline => Self::deadline(),
            ForwardError::Broken(defect) => Self::bad_gateway(defect.message()),
            ForwardError::Invalid(message) => Self::new(StatusCode::BAD_REQUEST, INVALID, message),
        }
    }
}

impl ApiError {
    /// A model name that led nowhere. What a key may not use does not exist for it.
    #[must_use]
    pub fn from_route(error: &RouteError, model: &str) -> Self {
        match error {
            RouteError::NotFound | RouteError::Forbidden => Self::model_not_found(model),
            RouteError::Absent(why) => Self::absent(model, why),
            RouteError::Duplicate(_)
            | RouteError::OtherName { .. }
            | RouteError::SameRevision { .. } => Self::internal(error.to_string()),
        }
    }
}
