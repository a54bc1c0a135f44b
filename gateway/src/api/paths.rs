//! From a path to an endpoint; `/v2` has its own ([`super::oip`]).

use http::Method;

#[cfg(test)]
mod tests;

/// The methods of what can only be read.
pub(crate) const READS: &str = "GET, HEAD";

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/rerank`, also `/rerank` and Cohere's `/v2/rerank`.
    Rerank,
    /// `/v1/classify`, also `/classify`.
    Classify,
    /// `/tokenize`, also `/v1/tokenize`.
    Tokenize,
    /// `/detokenize`, also `/v1/detokenize`.
    Detokenize,
    /// `/v1/models`.
    Models,
    /// `/v1/models/{id}`; the id may hold slashes.
    Model(String),
    /// `/health…`.
    Health(Health),
    /// `/version`.
    Version,
}

/// `/health/live`, and `/health/ready` (also `/health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The process answers.
    Live,
    /// Requests would be served.
    Ready,
}

impl Endpoint {
    /// The endpoint at a path; `None` where there is nothing.
    pub(crate) fn find(path: &str) -> Option<Self> {
        let path = match path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter,
            _ => path,
        };
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/rerank" | "/rerank" | "/v2/rerank" => Self::Rerank,
            "/v1/classify" | "/classify" => Self::Classify,
            "/tokenize" | "/v1/tokenize" => Self::Tokenize,
            "/detokenize" | "/v1/detokenize" => Self::Detokenize,
            "/v1/models" => Self::Models,
            "/health" | "/health/ready" => Self::Health(Health::Ready),
            "/health/live" => Self::Health(Health::Live),
            "/version" => Self::Version,
            _ => Self::Model(percent_decode(path.strip_prefix("/v1/models/")?)?),
        })
    }

    /// Whether two models' answers can be compared.
    pub(crate) fn is_comparable(&self) -> bool {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings | Self::Rerank | Self::Classify => {
                true
            }
            Self::Tokenize
            | Self::Detokenize
            | Self::Models
            | Self::Model(_)
            | Self::Health(_)
            | Self::Version => false,
        }
    }

    /// Whether it is about texts and tokens only, without the model computing anything.
    pub(crate) fn is_of_texts(&self) -> bool {
        matches!(self, Self::Tokenize | Self::Detokenize)
    }

    /// Whether the method is right.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        self.methods()
            .split(", ")
            .any(|taken| taken == method.as_str())
    }

    /// The methods that are right, as the header `Allow` lists them.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Embeddings
            | Self::Rerank
            | Self::Classify
            | Self::Tokenize
            | Self::Detokenize => "POST",
            Self::Models | Self::Model(_) | Self::Health(_) | Self::Version => READS,
        }
    }
}

/// `%2F` → `/` and so on; `None` when the result is not UTF-8 or an escape is broken.
fn percent_decode(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, after @ ..] = tail else {
                return None;
            };
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
