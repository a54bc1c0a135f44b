//! Endpoints as labels: a bounded set, whatever paths clients invent.

/// An endpoint, for logs, metrics and access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/rerank`
    Rerank,
    /// `/v1/models`, `/v1/models/{id}`
    Models,
    /// `/tokenize`, `/detokenize`
    Tokenize,
    /// Any other path under `/v1`
    OtherV1,
    /// `/v2/…`
    Inference,
    /// `/health/…`
    Health,
    /// `/metrics`
    Metrics,
    /// `/api/v1/stats`
    Stats,
    /// Any other path under `/api`: the control plane
    Control,
    /// Everything else
    Other,
}

/// What a request must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Route {
    /// Number of variants.
    pub const COUNT: usize = 13;
    /// All variants, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Rerank,
        Self::Models,
        Self::Tokenize,
        Self::OtherV1,
        Self::Inference,
        Self::Health,
        Self::Metrics,
        Self::Stats,
        Self::Control,
        Self::Other,
    ];

    /// The endpoint of a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/rerank" => Self::Rerank,
            "/tokenize" | "/detokenize" | "/v1/tokenize" | "/v1/detokenize" => Self::Tokenize,
            "/v1/models" => Self::Models,
            "/metrics" => Self::Metrics,
            "/api/v1/stats" => Self::Stats,
            "/health" => Self::Health,
            // The tensor protocol's probes are probes too.
            "/v2/health/live" | "/v2/health/ready" => Self::Health,
            _ if path.starts_with("/v1/models/") => Self::Models,
            _ if path.starts_with("/v1/") => Self::OtherV1,
            _ if path.starts_with("/health/") => Self::Health,
            "/api" => Self::Control,
            _ if path.starts_with("/api/") => Self::Control,
            "/v2" => Self::Inference,
            _ if path.starts_with("/v2/") => Self::Inference,
            _ => Self::Other,
        }
    }

    /// Its name in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Models => "models",
            Self::Tokenize => "tokenize",
            Self::OtherV1 => "v1",
            Self::Inference => "v2",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Stats => "stats",
            Self::Control => "control",
            Self::Other => "other",
        }
    }

    /// What a request must bring.
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Self::Health => Access::Open,
            Self::Metrics | Self::Stats => Access::Operations,
            Self::Control => Access::Control,
            _ => Access::Full,
        }
    }
}
