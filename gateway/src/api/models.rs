//! `GET /v1/models` and `/v1/models/{id}`.

use http::Response;
use serde::Serialize;

use super::{health, json};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::router::{Deployment, LocalModel};
use crate::{Body, Gateway};

/// OpenAI's model object, and what else a client may want to know.
#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    /// `chat`, `completion`, `embedding`, `rerank`, `classifier`, `tensor` or `remote`.
    kind: &'static str,
    revision: &'a str,
    /// Tokens that one request can hold; absent where tokens mean nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<usize>,
    /// Length of an embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    /// Why no request would be answered; absent where one would.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// The models that the caller's key may use.
pub(crate) fn list(
    gateway: &Gateway,
    context: &RequestContext,
) -> Result<Response<Body>, ApiError> {
    let routes = gateway.routes();
    let data = routes
        .usable(context.principal.as_deref())
        .map(|deployment| describe(deployment))
        .collect();
    json::ok(&List {
        object: "list",
        data,
    })
}

/// One of them.
pub(crate) fn get(
    gateway: &Gateway,
    context: &RequestContext,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let deployment = gateway
        .deployment(context, id, None)
        .map_err(|error| ApiError::from_route(&error, id))?
        .ok_or_else(|| ApiError::model_not_found(id))?;
    json::ok(&describe(&deployment))
}

fn describe(deployment: &Deployment) -> Model<'_> {
    let model = deployment.target.model();
    let (max_model_len, dimensions) = match model.as_deref() {
        Some(LocalModel::Language(model)) => (Some(model.info.context_length), None),
        Some(LocalModel::Encoder(encoder)) => {
            let dimensions = encoder.embeds().then(|| encoder.dimensions());
            (Some(encoder.max_tokens()), dimensions)
        }
        Some(LocalModel::Tensor(_)) | None => (None, None),
    };
    Model {
        id: &deployment.name,
        object: "model",
        created: deployment.created,
        owned_by: "sluice",
        kind: kind(model.as_deref()),
        revision: &deployment.revision,
        max_model_len,
        dimensions,
        trouble: health::trouble(deployment),
    }
}

/// What a deployment is for; without a model in this process, an upstream's.
pub(crate) fn kind(model: Option<&LocalModel>) -> &'static str {
    match model {
        Some(LocalModel::Language(model)) if model.template.is_some() => "chat",
        Some(LocalModel::Language(_)) => "completion",
        Some(LocalModel::Encoder(encoder)) if encoder.embeds() => "embedding",
        Some(LocalModel::Encoder(encoder)) if encoder.scores_pairs() => "rerank",
        Some(LocalModel::Encoder(_)) => "classifier",
        Some(LocalModel::Tensor(_)) => "tensor",
        None => "remote",
    }
}
