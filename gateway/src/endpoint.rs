//! The one table of endpoints: what a path means, which methods it takes, what a request
//! must bring, and under which label it is counted.
//!
//! The outermost layer resolves a request once, into its
//! [`RequestContext`](crate::RequestContext); everything behind asks the context. A path
//! that is read a second time will sooner or later be read differently.

use std::sync::Arc;

use http::Method;

use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The path: `{model}` is one segment, `{model*}` one or more, and `{*}` at the end
    /// anything, also nothing.
    pub pattern: &'static str,
    /// The methods that are right, as the header `Allow` lists them; empty where whoever
    /// answers decides.
    pub methods: &'static str,
    /// What a request must bring.
    pub access: Access,
    /// Its name in metrics and in the access log.
    pub label: RouteLabel,
    /// What is asked there.
    pub kind: Kind,
}

/// What is asked at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An answer of a model whose name stands in the JSON body.
    Model(Protocol),
    /// Something of the Open Inference Protocol.
    Tensor(Tensor),
    /// The models that the caller may use.
    Models,
    /// One of them.
    OneModel,
    /// Whether the process answers.
    Live,
    /// Whether requests would be served.
    Ready,
    /// Name and version of the program.
    Version,
    /// The metrics.
    Metrics,
    /// The deployments' numbers of the last minutes.
    Stats,
    /// Something of the control plane's, which has a table of its own.
    Control,
    /// Nothing: no such path.
    Unknown,
}

/// In which form a model is asked and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// Cohere's rerank.
    Rerank,
    /// vLLM's classify.
    Classify,
    /// vLLM's tokenize.
    Tokenize,
    /// vLLM's detokenize.
    Detokenize,
}

/// What is asked of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tensor {
    /// Run a model.
    Infer,
    /// A model's inputs and outputs.
    Metadata,
    /// The same in the form of Triton's model configuration.
    Config,
    /// Whether a model would answer.
    ModelReady,
    /// A model's counters.
    Statistics,
    /// All models' counters.
    AllStatistics,
    /// What the server is.
    Server,
    /// Whether the process answers.
    Live,
    /// Whether requests would be served.
    Ready,
    /// The list of models.
    Index,
    /// Load or unload a model.
    Repository,
    /// Nothing: no such path.
    Unknown,
}

/// What a request must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: probes must work whatever happens.
    Open,
    /// A key unless `auth.open_metrics`; never limited or shed.
    Operations,
    /// A rate, but no place among the requests to models; the control plane knows keys
    /// of its own and decides who may do what.
    Control,
    /// A key, a rate and a place.
    Full,
}

/// An endpoint's name in labels: a bounded set, whatever paths clients invent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteLabel {
    /// Chat completions.
    Chat,
    /// Completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Rerank.
    Rerank,
    /// Classify.
    Classify,
    /// The list of models, and one of them.
    Models,
    /// Tokenize and detokenize.
    Tokenize,
    /// Any other path under `/v1`.
    OtherV1,
    /// The Open Inference Protocol.
    Inference,
    /// Probes.
    Health,
    /// Name and version.
    Version,
    /// The metrics.
    Metrics,
    /// The deployments' numbers.
    Stats,
    /// The control plane.
    Control,
    /// Everything else.
    Other,
}

impl RouteLabel {
    /// Number of variants.
    pub const COUNT: usize = 15;
    /// All variants, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Rerank,
        Self::Classify,
        Self::Models,
        Self::Tokenize,
        Self::OtherV1,
        Self::Inference,
        Self::Health,
        Self::Version,
        Self::Metrics,
        Self::Stats,
        Self::Control,
        Self::Other,
    ];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Classify => "classify",
            Self::Models => "models",
            Self::Tokenize => "tokenize",
            Self::OtherV1 => "v1",
            Self::Inference => "v2",
            Self::Health => "health",
            Self::Version => "version",
            Self::Metrics => "metrics",
            Self::Stats => "stats",
            Self::Control => "control",
            Self::Other => "other",
        }
    }
}

impl Protocol {
    /// Whether the answer is a generated text.
    #[must_use]
    pub fn is_generation(self) -> bool {
        match self {
            Self::Chat | Self::Completions => true,
            Self::Embeddings
            | Self::Rerank
            | Self::Classify
            | Self::Tokenize
            | Self::Detokenize => false,
        }
    }

    /// Whether it is about texts and tokens only, without the model computing anything.
    #[must_use]
    pub fn is_of_texts(self) -> bool {
        match self {
            Self::Tokenize | Self::Detokenize => true,
            Self::Chat | Self::Completions | Self::Embeddings | Self::Rerank | Self::Classify => {
                false
            }
        }
    }
}

impl Kind {
    /// Whether a model answers with a generated text.
    #[must_use]
    pub fn is_generation(self) -> bool {
        matches!(self, Self::Model(protocol) if protocol.is_generation())
    }

    /// Whether two models' answers can be compared.
    #[must_use]
    pub fn is_comparable(self) -> bool {
        matches!(self, Self::Model(protocol) if !protocol.is_of_texts())
    }

    /// Whether a model is made to answer, which is somebody's use of it. Questions about a
    /// model are none.
    #[must_use]
    pub fn is_use(self) -> bool {
        match self {
            Self::Model(_) | Self::Tensor(Tensor::Infer) => true,
            Self::Tensor(_)
            | Self::Models
            | Self::OneModel
            | Self::Live
            | Self::Ready
            | Self::Version
            | Self::Metrics
            | Self::Stats
            | Self::Control
            | Self::Unknown => false,
        }
    }
}

const READ: &str = "GET, HEAD";
const SEND: &str = "POST";
/// Whoever answers decides.
const ANY: &str = "";

/// A row, written as a line.
const fn row(
    pattern: &'static str,
    methods: &'static str,
    access: Access,
    label: RouteLabel,
    kind: Kind,
) -> Endpoint {
    Endpoint {
        pattern,
        methods,
        access,
        label,
        kind,
    }
}

use Access::{Control, Full, Open, Operations};

/// The table, for those who describe it.
pub fn table() -> &'static [Endpoint] {
    &TABLE
}

/// All endpoints. The first row that fits counts; the last fits everything.
#[rustfmt::skip]
static TABLE: [Endpoint; 45] = [
    row("/v1/chat/completions", SEND, Full, RouteLabel::Chat, Kind::Model(Protocol::Chat)),
    row("/v1/completions", SEND, Full, RouteLabel::Completions, Kind::Model(Protocol::Completions)),
    row("/v1/embeddings", SEND, Full, RouteLabel::Embeddings, Kind::Model(Protocol::Embeddings)),
    row("/v1/rerank", SEND, Full, RouteLabel::Rerank, Kind::Model(Protocol::Rerank)),
    row("/rerank", SEND, Full, RouteLabel::Rerank, Kind::Model(Protocol::Rerank)),
    // Cohere's, under the tensor protocol's prefix.
    row("/v2/rerank", SEND, Full, RouteLabel::Rerank, Kind::Model(Protocol::Rerank)),
    row("/v1/classify", SEND, Full, RouteLabel::Classify, Kind::Model(Protocol::Classify)),
    row("/classify", SEND, Full, RouteLabel::Classify, Kind::Model(Protocol::Classify)),
    row("/tokenize", SEND, Full, RouteLabel::Tokenize, Kind::Model(Protocol::Tokenize)),
    row("/v1/tokenize", SEND, Full, RouteLabel::Tokenize, Kind::Model(Protocol::Tokenize)),
    row("/detokenize", SEND, Full, RouteLabel::Tokenize, Kind::Model(Protocol::Detokenize)),
    row("/v1/detokenize", SEND, Full, RouteLabel::Tokenize, Kind::Model(Protocol::Detokenize)),
    row("/v1/models", READ, Full, RouteLabel::Models, Kind::Models),
    row("/v1/models/{model*}", READ, Full, RouteLabel::Models, Kind::OneModel),
    row("/v1/models/{*}", ANY, Full, RouteLabel::Models, Kind::Unknown),
    row("/v1", ANY, Full, RouteLabel::OtherV1, Kind::Unknown),
    row("/v1/{*}", ANY, Full, RouteLabel::OtherV1, Kind::Unknown),

    row("/v2", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Server)),
    // The tensor protocol's probes are probes too.
    row("/v2/health/live", READ, Open, RouteLabel::Health, Kind::Tensor(Tensor::Live)),
    row("/v2/health/ready", READ, Open, RouteLabel::Health, Kind::Tensor(Tensor::Ready)),
    // Triton lists its repository by POST.
    row("/v2/repository/index", "GET, HEAD, POST", Full, RouteLabel::Inference, Kind::Tensor(Tensor::Index)),
    row("/v2/repository/models/{model}/load", SEND, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Repository)),
    row("/v2/repository/models/{model}/unload", SEND, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Repository)),
    row("/v2/models/stats", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::AllStatistics)),
    row("/v2/models/{model}", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Metadata)),
    row("/v2/models/{model}/config", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Config)),
    row("/v2/models/{model}/ready", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::ModelReady)),
    row("/v2/models/{model}/stats", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Statistics)),
    row("/v2/models/{model}/infer", SEND, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Infer)),
    row("/v2/models/{model}/versions/{version}", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Metadata)),
    row("/v2/models/{model}/versions/{version}/config", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Config)),
    row("/v2/models/{model}/versions/{version}/ready", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::ModelReady)),
    row("/v2/models/{model}/versions/{version}/stats", READ, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Statistics)),
    row("/v2/models/{model}/versions/{version}/infer", SEND, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Infer)),
    row("/v2/{*}", ANY, Full, RouteLabel::Inference, Kind::Tensor(Tensor::Unknown)),

    row("/health", READ, Open, RouteLabel::Health, Kind::Ready),
    row("/health/ready", READ, Open, RouteLabel::Health, Kind::Ready),
    row("/health/live", READ, Open, RouteLabel::Health, Kind::Live),
    row("/health/{*}", ANY, Open, RouteLabel::Health, Kind::Unknown),
    row("/version", READ, Full, RouteLabel::Version, Kind::Version),
    row("/metrics", READ, Operations, RouteLabel::Metrics, Kind::Metrics),
    row("/api/v1/stats", READ, Operations, RouteLabel::Stats, Kind::Stats),
    row("/api", ANY, Control, RouteLabel::Control, Kind::Control),
    row("/api/{*}", ANY, Control, RouteLabel::Control, Kind::Control),
    row("{*}", ANY, Full, RouteLabel::Other, Kind::Unknown),
];

/// What is left of a path without a slash at its end, which means nothing here.
fn trimmed(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some(shorter) if !shorter.is_empty() => shorter,
        _ => path,
    }
}

impl Endpoint {
    /// All rows, in the order in which they are tried.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &TABLE
    }

    /// Whether the row names a path, or a set of paths where nothing is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Unknown | Kind::Tensor(Tensor::Unknown))
    }

    /// Checks the method.
    ///
    /// # Errors
    /// 405, with those that would be right. For a row where nothing is, 404.
    pub fn check(&self, method: &Method, path: &str) -> Result<(), ApiError> {
        if !self.is_known() {
            return Err(ApiError::unknown_url(method, path));
        }
        let mut taken = self.methods.split(", ");
        match self.methods.is_empty() || taken.any(|taken| taken == method.as_str()) {
            true => Ok(()),
            false => Err(ApiError::method_not_allowed(method, path, self.methods)),
        }
    }

    /// The names in a path, if the row fits.
    fn fit(&'static self, path: &str) -> Option<Resolved> {
        let mut resolved = Resolved {
            endpoint: self,
            model: None,
            version: None,
        };
        let (mut pattern, mut rest) = (self.pattern, path);
        while let Some((before, behind)) = pattern.split_once('{') {
            rest = rest.strip_prefix(before)?;
            let (name, after) = behind.split_once('}')?;
            let taken = match name {
                // The catch-all of a prefix, and names that may hold slashes.
                "*" => return Some(resolved),
                "model*" => rest.len(),
                _ => rest.find('/').unwrap_or(rest.len()),
            };
            let value = Some(Arc::from(percent_decode(&rest[..taken])?));
            match name {
                "version" => resolved.version = value,
                _ => resolved.model = value,
            }
            rest = &rest[taken..];
            pattern = after;
        }
        (rest == pattern).then_some(resolved)
    }
}

/// A path, looked up: its row, and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The row.
    pub endpoint: &'static Endpoint,
    /// The model that the path names.
    pub model: Option<Arc<str>>,
    /// The revision that the path names.
    pub version: Option<Arc<str>>,
}

impl Resolved {
    /// Looks a path up. Each path has a row, though it may be one where nothing is.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let path = trimmed(path);
        let named = TABLE.iter().find(|row| row.pattern == path);
        let endpoint = match named {
            Some(endpoint) => endpoint,
            None => {
                let fitting = TABLE.iter().filter(|row| row.pattern.contains('{'));
                match fitting.into_iter().find_map(|row| row.fit(path)) {
                    Some(resolved) => return resolved,
                    // The last row, which fits everything.
                    None => &TABLE[TABLE.len() - 1],
                }
            }
        };
        Self {
            endpoint,
            model: None,
            version: None,
        }
    }
}

/// `%2F` → `/` and so on; `None` when the result is empty or not UTF-8, or an escape is
/// broken.
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
