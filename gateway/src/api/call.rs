//! One request for a model: routed, and forwarded when the model is elsewhere.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::fields::{self, Fields};
use super::{chat, classify, completions, embeddings, release, rerank, tokenize};
use crate::context::RequestContext;
use crate::endpoint::Protocol;
use crate::error::ApiError;
use crate::remote::Envelope;
use crate::replicas::Tried;
use crate::router::split::Subject;
use crate::router::{Deployment, LocalModel, Replicas, Target};
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
        let envelope = Envelope::parse(&body).map_err(|_| explain(&body))?;
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
        match context.outcome.placement() {
            None => self.ask(context, &deployment).await,
            Some(placement) => Box::pin(release::answer(gateway, context, placement, self)).await,
        }
    }

    fn route(
        &self,
        gateway: &Gateway,
        context: &RequestContext,
    ) -> Result<Arc<Deployment>, ApiError> {
        let Some(name) = &self.envelope.model else {
            return Err(explain(&self.body));
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

    /// Asks one deployment. Of a request that is forwarded only the envelope is read:
    /// the upstream knows best which fields it takes.
    pub(crate) async fn ask(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
    ) -> Result<Response<Body>, ApiError> {
        match &deployment.target {
            Target::Remote(pool) => {
                let body = self.body.clone();
                let asking = pool.forecast().ask(Instant::now(), context.deadline);
                let asking = asking.map_err(ApiError::too_late)?;
                let answer = pool.forward(context, &self.parts, body, &self.envelope);
                let answer = answer.await?;
                // A refusal, however fast, says nothing of how long answers take.
                if answer.status().is_success() {
                    asking.answered();
                }
                Ok(answer)
            }
            // Texts and tokens need no executor.
            Target::Local(replicas) if self.protocol.is_of_texts() => {
                self.call(context, deployment, replicas.model()).await
            }
            Target::Local(replicas) => self.ask_local(context, deployment, replicas).await,
        }
    }

    /// Asks a replica, and another if that is lost before it has begun.
    async fn ask_local(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        replicas: &Replicas,
    ) -> Result<Response<Body>, ApiError> {
        let mut tried = Tried::default();
        loop {
            let lease = replicas
                .lease(tried)
                .map_err(|none| ApiError::no_replica(&deployment.name, none))?;
            let model = Arc::clone(lease.model());
            match self.call(context, deployment, model).await {
                Err(error) if error.is_unavailable() && lease.is_lost() => {
                    tried.add(&lease);
                    context.outcome.begin_again();
                }
                answer => return answer.map(|answer| lease.follow(answer)),
            }
        }
    }

    /// Has one model answer.
    async fn call(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        model: Arc<LocalModel>,
    ) -> Result<Response<Body>, ApiError> {
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
            Protocol::Tokenize => tokenize::tokenize(&call).await,
            Protocol::Detokenize => tokenize::detokenize(&call).await,
        }
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
