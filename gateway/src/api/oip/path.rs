//! From a path under `/v2` to what is asked. Pure.

use http::Method;

use crate::api::paths::READS;

/// The Open Inference Protocol's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Oip {
    /// `/v2`.
    Server,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// `/v2/repository/index`.
    Index,
    /// `/v2/repository/models/{name}/load` and `…/unload`.
    Repository,
    /// `/v2/models/stats`.
    AllStatistics,
    /// `/v2/models/{name}[/versions/{version}][/{action}]`.
    Model {
        /// The deployment.
        name: String,
        /// The revision asked for.
        version: Option<String>,
        /// What about it.
        action: OipAction,
    },
}

/// What is asked of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OipAction {
    /// Inputs and outputs.
    Metadata,
    /// The same in the form of Triton's model configuration.
    Config,
    /// Whether it would answer.
    Ready,
    /// Counters.
    Statistics,
    /// Run it.
    Infer,
}

impl Oip {
    /// The endpoint at a path that begins with `/v2`; `None` where there is nothing.
    /// Names and versions are one path segment each, percent-decoded.
    pub(crate) fn find(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        let segments: Vec<&str> = rest.trim_end_matches('/').split('/').skip(1).collect();
        let (name, version, action) = match *segments.as_slice() {
            [] => return Some(Self::Server),
            ["health", "live"] => return Some(Self::Live),
            ["health", "ready"] => return Some(Self::Ready),
            ["repository", "index"] => return Some(Self::Index),
            ["repository", "models", _, "load" | "unload"] => return Some(Self::Repository),
            ["models", "stats"] => return Some(Self::AllStatistics),
            ["models", name] => (name, None, OipAction::Metadata),
            ["models", name, action] => (name, None, OipAction::find(action)?),
            ["models", name, "versions", version] => (name, Some(version), OipAction::Metadata),
            ["models", name, "versions", version, action] => {
                (name, Some(version), OipAction::find(action)?)
            }
            _ => return None,
        };
        Some(Self::Model {
            name: percent_decode(name)?,
            version: match version {
                Some(version) => Some(percent_decode(version)?),
                None => None,
            },
            action,
        })
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
            // Triton lists its repository by POST.
            Self::Index => "GET, HEAD, POST",
            Self::Repository
            | Self::Model {
                action: OipAction::Infer,
                ..
            } => "POST",
            _ => READS,
        }
    }
}

impl OipAction {
    fn find(segment: &str) -> Option<Self> {
        Some(match segment {
            "config" => Self::Config,
            "ready" => Self::Ready,
            "stats" => Self::Statistics,
            "infer" => Self::Infer,
            _ => return None,
        })
    }
}

/// `%2F` → `/` and so on; `None` when the result is empty or not UTF-8, or an
/// escape is broken.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            (b'%', _) => return None,
            (byte, _) => *byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| !name.is_empty())
}
