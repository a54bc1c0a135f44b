//! One request for a model: routed, and forwarded when the model is elsewhere.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::ask::{Question, Told, Unanswered, ask_released, sorted};
use super::fields::{self, Fields};
use super::{chat, classify, completions, embeddings, release, rerank, tokenize};
use crate::context::RequestContext;
use crate::endpoint::Protocol;
use crate::error::ApiError;
use crate::release::Class;
use crate::remote::envelope::EnvelopeError;
use crate::remote::{Envelope, RemotePool};
use crate::router::split::Subject;
use crate::router::{Deployment, LocalModel};
use crate::{Body, Gateway};

/// A request for a model in this process.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) context: RequestContext,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) model: Arc<LocalModel>,
    pub(crate) body: Bytes,
}

/// A request for a model, read as far as routing needs.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) protocol: Protocol,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) envelope: Envelope,
}

impl Asked {
    /// Reads the envelope.
    pub(super) fn read(protocol: Protocol, parts: Parts, body: Bytes) -> Result<Self, ApiError> {
        let envelope = Envelope::parse(&body).map_err(|error| explain(&error, &body))?;
        Ok(Self {
            protocol,
            parts,
            body,
            envelope,
        })
    }

    /// Finds the model, asks it, and answers.
    pub(super) async fn answer(
        self,
        gateway: &Arc<Gateway>,
        context: &RequestContext,
    ) -> Result<Response<Body>, ApiError> {
        let deployment = self.route(gateway, context)?;
        let answer = match context.outcome.placement() {
            None => ask_released(&self, context, None, &deployment).await,
            Some(placement) => Box::pin(release::answer(gateway, context, placement, self)).await,
        };
        answer.or_else(Told::into_result)
    }

    fn route(
        &self,
        gateway: &Gateway,
        context: &RequestContext,
    ) -> Result<Arc<Deployment>, ApiError> {
        let Some(name) = &self.envelope.model else {
            return Err(without_model(&self.body));
        };
        let user = self.envelope.user(&self.body);
        let subject = Subject {
            headers: &self.parts.headers,
            user: user.as_deref(),
            principal: context.principal.as_deref(),
        };
        gateway
            .route(context, name, &subject)
            .map_err(|error| ApiError::from_route(&error, name))
    }
}

impl Question for Asked {
    fn needs_executor(&self) -> bool {
        !self.protocol.is_of_texts()
    }

    async fn ask_model(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        model: Arc<LocalModel>,
    ) -> Result<Response<Body>, Unanswered> {
        let call = Call {
            context: context.clone(),
            deployment: Arc::clone(deployment),
            model,
            body: self.body.clone(),
        };
        match self.protocol {
            Protocol::Chat => chat::create(&call).await,
            Protocol::Completions => completions::create(&call).await,
            Protocol::Embeddings => embeddings::create(&call).await,
            Protocol::Rerank => rerank::create(&call).await,
            Protocol::Classify => classify::create(&call).await,
            Protocol::Tokenize => Ok(tokenize::tokenize(&call).await?),
            Protocol::Detokenize => Ok(tokenize::detokenize(&call).await?),
        }
    }

    /// Of a request that is forwarded only the envelope is read: the upstream knows best
    /// which fields it takes.
    async fn ask_upstream(
        &self,
        context: &RequestContext,
        _deployment: &Arc<Deployment>,
        pool: &RemotePool,
    ) -> Result<Response<Body>, Unanswered> {
        let body = self.body.clone();
        let asking = pool.forecast().ask(Instant::now(), context.deadline);
        let asking = asking.map_err(|expected| {
            let told = Told::Error(ApiError::too_late(expected));
            Unanswered::Failed(Class::OwnDeadline, told)
        })?;
        let answer = pool.forward(context, &self.parts, body, &self.envelope, self.protocol);
        let answer = sorted(answer.await?)?;
        // A refusal, however fast, says nothing of how long answers take.
        if answer.status().is_success() {
            asking.answered();
        }
        Ok(answer)
    }
}

impl Call {
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

/// Why an envelope could not be read, in OpenAI's words.
fn explain(error: &EnvelopeError, body: &[u8]) -> ApiError {
    match error {
        EnvelopeError::Json(_) => without_model(body),
        EnvelopeError::Ambiguous(name) => ApiError::invalid_value(
            *name,
            format!("Invalid '{name}': the field must stand in the body once, in lower case."),
        ),
        EnvelopeError::Stream => ApiError::bad_request(
            "invalid_type",
            "Invalid type for 'stream': expected true or false.",
        )
        .with_param("stream"),
    }
}

/// Why a body names no model, in OpenAI's words.
fn without_model(body: &[u8]) -> ApiError {
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
