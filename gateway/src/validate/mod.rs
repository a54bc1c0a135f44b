//! What counts as an answer of a model server. Pure.
//!
//! A status of 200 says little: web pages, error objects, half a JSON value and streams that
//! stop without an end come under it as well. Whatever asks how an upstream did (the choice
//! of another replica, ejection, the fall-back to a stable revision, the outcome of a release,
//! metrics, access log) asks this module, so that all of them mean the same by an answer.
//!
//! [`head`] judges what comes first, [`whole`] an answer in one piece, [`events`] a stream,
//! piece by piece. On their way through [`tally`] notes what an answer says of itself, and what a
//! client is to see otherwise ([`scan`], [`events::Edits`], [`scrub`]) is changed in its place.
//! `docs/answers.md` lists the faults and what each does.

mod change;
mod chunk;
pub mod events;
mod json;
pub(crate) mod patch;
pub mod scan;
pub mod scrub;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod whole;

use http::{HeaderMap, StatusCode, header};

/// Why something is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defect {
    /// A status that promises no answer: 1xx, 204, 205, 206, 3xx, 600 and above.
    Status,
    /// Another media type than the protocol's.
    MediaType,
    /// Compressed, although nobody asked for that.
    Encoding,
    /// No bytes at all.
    Empty,
    /// No JSON, or more than one value.
    Json,
    /// An error object or an error event under a status of success.
    Error,
    /// JSON without what the protocol promises: a choice, a vector for each input, a score.
    Shape,
    /// A stream that ends before its choices do.
    Unfinished,
    /// An event larger than any that could be held back.
    Large,
}

impl Defect {
    /// A word for the access log and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::MediaType => "media_type",
            Self::Encoding => "encoding",
            Self::Empty => "empty",
            Self::Json => "json",
            Self::Error => "error",
            Self::Shape => "shape",
            Self::Unfinished => "unfinished",
            Self::Large => "large",
        }
    }

    /// What the client is told. Nothing of what the upstream sent is repeated.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Status => "The upstream answered with a status that is no answer.",
            Self::MediaType => "The upstream answered with another media type than was asked for.",
            Self::Encoding => "The upstream compressed its answer, which was not asked for.",
            Self::Empty => "The upstream answered with nothing.",
            Self::Json => "The upstream answered with something that is not valid JSON.",
            Self::Error => "The upstream reported an error in place of an answer.",
            Self::Shape => "The upstream's answer lacks what was asked for.",
            Self::Unfinished => "The upstream ended its answer before it was complete.",
            Self::Large => "The upstream sent an event that is too large.",
        }
    }
}

/// What the head of an upstream's response announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// An answer in one piece, to be judged when it is there.
    Whole,
    /// An answer as a stream, to be judged as it comes.
    Events,
    /// A binary answer that the request asked for, which is not read.
    Opaque,
    /// A refusal of the request (4xx).
    Refusal(Refusal),
    /// A failure that says so (5xx).
    Failure,
    /// No answer.
    Broken(Defect),
}

/// Who is meant by an upstream's 4xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request.
    Request,
    /// Our own account there (its key, its money, its rate, its name of the model), which is
    /// nothing that the client could mend.
    Account,
}

/// Who is meant by a 4xx of an upstream; `None` for any other status.
#[must_use]
pub fn refusal(status: StatusCode) -> Option<Refusal> {
    const ACCOUNT: [StatusCode; 7] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PAYMENT_REQUIRED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status
        .is_client_error()
        .then(|| match ACCOUNT.contains(&status) {
            true => Refusal::Account,
            false => Refusal::Request,
        })
}

/// The form in which an answer was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON value.
    Whole,
    /// Events.
    Events,
    /// Raw bytes (`encoding_format` of vLLM's embeddings).
    Opaque,
}

/// Judges status and headers.
#[must_use]
pub fn head(status: StatusCode, headers: &HeaderMap, form: Form) -> Head {
    const NO_BODY: [u16; 3] = [204, 205, 206];
    if let Some(refusal) = refusal(status) {
        return Head::Refusal(refusal);
    }
    if status.is_server_error() {
        return Head::Failure;
    }
    if !status.is_success() || NO_BODY.contains(&status.as_u16()) {
        return Head::Broken(Defect::Status);
    }
    let encoded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Head::Broken(Defect::Encoding);
    }
    match (form, media(headers)) {
        (Form::Whole | Form::Opaque, Media::Json | Media::Absent) => Head::Whole,
        (Form::Events, Media::Events) => Head::Events,
        (Form::Opaque, Media::Binary) => Head::Opaque,
        (Form::Whole | Form::Events | Form::Opaque, _) => Head::Broken(Defect::MediaType),
    }
}

/// Media types as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Events,
    Binary,
    Other,
    /// Then the body says what it is.
    Absent,
}

fn media(headers: &HeaderMap) -> Media {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Media::Absent;
    };
    let value = value.as_bytes();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let name = value[..end].trim_ascii();
    let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
    let suffixed = name.len() > 5 && name[name.len() - 5..].eq_ignore_ascii_case(b"+json");
    if is(b"application/json") || is(b"text/json") || suffixed {
        Media::Json
    } else if is(b"text/event-stream") {
        Media::Events
    } else if is(b"application/octet-stream") {
        Media::Binary
    } else {
        Media::Other
    }
}
