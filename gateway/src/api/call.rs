//! One request for a model: routed, and forwarded when the model is elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::fields::{self, Fields};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::remote::Envelope;
use crate::router::{Deployment, LocalModel, Target};
use crate::{Body, Gateway};

/// A request for a model in this process.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) context: RequestContext,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) model: LocalModel,
    pub(crate) body: Bytes,
}

/// Where a request went.
pub(crate) enum Resolved {
    /// To a model in this process; the endpoint goes on.
    Here(Call),
    /// To an upstream, whose answer this is.
    Forwarded(Response<Body>),
}

impl Call {
    /// Finds the model. Of a request that is forwarded only the envelope is read:
    /// the upstream knows best which fields it takes.
    pub(crate) async fn resolve(
        gateway: &Gateway,
        context: &RequestContext,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Resolved, ApiError> {
        let envelope = Envelope::parse(&body).map_err(|_| explain(&body))?;
        let Some(name) = &envelope.model else {
            return Err(explain(&body));
        };
        let deployment = gateway
            .deployment(context, name)
            .map_err(|error| ApiError::from_route(&error, name))?;
        match &deployment.target {
            Target::Remote(pool) => {
                let answer = pool.forward(context, parts, body, &envelope).await?;
                Ok(Resolved::Forwarded(answer))
            }
            Target::Local(model) => Ok(Resolved::Here(Self {
                context: context.clone(),
                model: model.clone(),
                body,
                deployment,
            })),
        }
    }

    /// A model that cannot do what the endpoint is for.
    pub(crate) fn wrong_kind(&self, needed: &str) -> ApiError {
        ApiError::bad_request(
            "unsupported_value",
            format!(
                "The model `{}` is not {needed} and thus not supported in this endpoint.",
                self.deployment.name
            ),
        )
        .with_param("model")
    }
}

/// Why an envelope could not be read or names no model, in OpenAI's words.
fn explain(body: &[u8]) -> ApiError {
    let mut request = match Fields::parse(body) {
        Ok(request) => request,
        Err(error) => return error,
    };
    match request.take("model") {
        None => ApiError::missing("model"),
        Some(serde_json::Value::String(_)) => ApiError::malformed("it is not valid JSON"),
        Some(other) => fields::wrong_type("model".into(), "a string", &other),
    }
}
