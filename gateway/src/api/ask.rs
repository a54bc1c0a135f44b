//! Asking a model, wherever it is: what can become of it, and who is asked instead.
//!
//! What comes of one attempt is typed below HTTP: which error a client is shown in the end
//! says nothing about whether another replica or another revision may still be asked.

use std::future::Future;
use std::sync::Arc;

use http::{Response, StatusCode};

use crate::Body;
use crate::context::{Fault, RequestContext};
use crate::error::ApiError;
use crate::release::{Class, Placement};
use crate::remote::{ForwardError, RemotePool};
use crate::replicas::Tried;
use crate::router::split::{Assignment, Side};
use crate::router::{Deployment, LocalModel, Replicas, Target};
use crate::validate::{self, Refusal};

/// One attempt that brought no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The model, or its server, refused the request (4xx).
    Refused(Told),
    /// Nothing was begun, because the executor is lost or ends: another one may be asked.
    NotBegun(ApiError),
    /// It was begun, or nobody knows, and nothing came of it.
    Failed(Class, Told),
}

/// What the client will be told if nobody else is asked.
#[derive(Debug)]
pub(crate) enum Told {
    /// In our own words.
    Error(ApiError),
    /// In the upstream's.
    Response(Box<Response<Body>>),
}

impl Told {
    /// The answer, or the error that takes its place.
    pub(crate) fn into_result(self) -> Result<Response<Body>, ApiError> {
        match self {
            Self::Error(error) => Err(error),
            Self::Response(response) => Ok(*response),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Error(error) => error.status(),
            Self::Response(response) => response.status(),
        }
    }
}

impl Unanswered {
    /// How the attempt ended for the revision that was asked.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Refused(_) => Class::Rejected,
            Self::NotBegun(_) => Class::Failed,
            Self::Failed(class, _) => *class,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotBegun(error) => error.status(),
            Self::Refused(told) | Self::Failed(_, told) => told.status(),
        }
    }

    /// The one mapping to HTTP.
    pub(crate) fn into_told(self) -> Told {
        match self {
            Self::NotBegun(error) => Told::Error(error),
            Self::Refused(told) | Self::Failed(_, told) => told,
        }
    }
}

/// An error of the request's, or of ours. Where nothing was begun says so itself.
impl From<ApiError> for Unanswered {
    fn from(error: ApiError) -> Self {
        let status = error.status();
        let told = Told::Error(error);
        if status.is_client_error() {
            Self::Refused(told)
        } else if status == StatusCode::GATEWAY_TIMEOUT {
            Self::Failed(Class::Timeout, told)
        } else {
            Self::Failed(Class::Failed, told)
        }
    }
}

impl From<ForwardError> for Unanswered {
    fn from(error: ForwardError) -> Self {
        let class = match &error {
            ForwardError::NoUpstream => return Self::NotBegun(error.into()),
            ForwardError::Invalid(_) => return Self::Refused(Told::Error(error.into())),
            ForwardError::Unreachable(_) | ForwardError::Denied => Class::Failed,
            ForwardError::Timeout | ForwardError::Deadline => Class::Timeout,
            ForwardError::Broken(_) => Class::Broken,
        };
        Self::Failed(class, Told::Error(error.into()))
    }
}

/// What can be put to a model, more than once.
pub(crate) trait Question: Sync {
    /// Whether an executor is needed at all: texts and tokens do without.
    fn needs_executor(&self) -> bool;

    /// Has a model of this process answer.
    fn ask_model(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        model: Arc<LocalModel>,
    ) -> impl Future<Output = Result<Response<Body>, Unanswered>> + Send;

    /// Has an upstream answer.
    fn ask_upstream(
        &self,
        context: &RequestContext,
        deployment: &Arc<Deployment>,
        pool: &RemotePool,
    ) -> impl Future<Output = Result<Response<Body>, Unanswered>> + Send;
}

/// Asks one revision.
pub(crate) async fn ask<Q: Question>(
    question: &Q,
    context: &RequestContext,
    deployment: &Arc<Deployment>,
) -> Result<Response<Body>, Unanswered> {
    match &deployment.target {
        Target::Remote(pool) => question.ask_upstream(context, deployment, pool).await,
        Target::Local(replicas) if !question.needs_executor() => {
            let model = replicas.model();
            question.ask_model(context, deployment, model).await
        }
        Target::Local(replicas) => ask_replicas(question, context, deployment, replicas).await,
    }
}

/// Asks a replica, and another if that is lost before it has begun.
async fn ask_replicas<Q: Question>(
    question: &Q,
    context: &RequestContext,
    deployment: &Arc<Deployment>,
    replicas: &Replicas,
) -> Result<Response<Body>, Unanswered> {
    let mut tried = Tried::default();
    loop {
        let lease = replicas
            .lease(tried)
            .map_err(|none| Unanswered::NotBegun(ApiError::no_replica(&deployment.name, none)))?;
        let model = Arc::clone(lease.model());
        match question.ask_model(context, deployment, model).await {
            Err(Unanswered::NotBegun(_)) if lease.is_lost() => {
                tried.add(&lease);
                context.outcome.begin_again();
            }
            answer => return answer.map(|answer| lease.follow(answer)),
        }
    }
}

/// Asks the revision that the request was put to, and stable if that is a candidate which
/// brings no answer before the client has seen anything of it: a request costs one attempt
/// on a release more at most, and only where the first was for nothing.
pub(crate) async fn ask_released<Q: Question>(
    question: &Q,
    context: &RequestContext,
    placement: Option<&Placement>,
    deployment: &Arc<Deployment>,
) -> Result<Response<Body>, Told> {
    let mut answer = ask(question, context, deployment).await;
    if let Some(placement) = placement
        && let Err(unanswered) = &answer
        && may_fall_back(placement)
        && !context.is_past_deadline()
    {
        placement.fall_back(unanswered.class(), unanswered.status());
        placement.release().candidate().series.retried_on_stable();
        context.outcome.begin_again();
        // What the candidate has sent is dropped first.
        drop(answer);
        answer = ask(question, context, placement.deployment()).await;
    }
    answer.map_err(|unanswered| {
        note(context, &unanswered);
        unanswered.into_told()
    })
}

/// Tells those who count what status and body do not say.
fn note(context: &RequestContext, unanswered: &Unanswered) {
    context.outcome.set_class(unanswered.class());
    match unanswered {
        Unanswered::Refused(_) => {}
        // Also under a 4xx, which is about our own account at the upstream.
        Unanswered::NotBegun(_) | Unanswered::Failed(..) => {
            context.outcome.set_fault(Fault::Server);
        }
    }
}

/// Whether a candidate that brings no answer may be replaced: not where the request named it.
fn may_fall_back(placement: &Placement) -> bool {
    let pick = placement.pick();
    pick.side == Side::Candidate && pick.assignment != Assignment::Named
}

/// What an upstream's response is, by its status; answers have been judged before.
pub(crate) fn sorted(response: Response<Body>) -> Result<Response<Body>, Unanswered> {
    let status = response.status();
    let class = match validate::refusal(status) {
        Some(Refusal::Request) => {
            return Err(Unanswered::Refused(Told::Response(Box::new(response))));
        }
        Some(Refusal::Account) => Class::Failed,
        None if status == StatusCode::GATEWAY_TIMEOUT => Class::Timeout,
        None if status.is_server_error() => Class::Failed,
        None => return Ok(response),
    };
    Err(Unanswered::Failed(
        class,
        Told::Response(Box::new(response)),
    ))
}
