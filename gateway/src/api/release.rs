//! A request for a deployment under release: put to one of the two revisions, with the
//! stable one to fall back on.

use std::sync::Arc;

use http::{Response, StatusCode};
use tokio::runtime::Handle;

use super::call::Asked;
use crate::context::RequestContext;
use crate::endpoint::Kind;
use crate::error::ApiError;
use crate::metrics::Shadowing;
use crate::release::shadow::{self, ShadowRequest};
use crate::release::{Placement, body};
use crate::router::Target;
use crate::router::split::{Assignment, Side};
use crate::{Body, Gateway};

/// Bytes of an answer from which emptiness and refusal can be told.
const OPENING: usize = 4 << 10;

/// Answers a request that a release has put somewhere.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    context: &RequestContext,
    placement: &Placement,
    asked: Asked,
) -> Result<Response<Body>, ApiError> {
    let response = put(gateway, context, placement, &asked).await?;
    let watch = gateway.releases();
    if !watch.has_listener() {
        return Ok(response);
    }
    let structured = asked.envelope.structured;
    let copied = placement.pick().shadow && is_copied(gateway, &asked);
    let limit = match structured || copied {
        true => watch.config().max_answer,
        false => OPENING,
    };
    if copied && response.status().is_success() {
        let mut asked = asked;
        shadow::mark(&mut asked.parts.headers);
        placement.keep_copy(Box::new(ShadowRequest {
            asked,
            gateway: Arc::downgrade(gateway),
            runtime: Handle::current(),
        }));
    }
    Ok(body::keep(response, &context.outcome, structured, limit))
}

/// Asks the revision that was picked, and stable if the candidate fails before the client
/// has seen anything of its answer.
async fn put(
    gateway: &Gateway,
    context: &RequestContext,
    placement: &Placement,
    asked: &Asked,
) -> Result<Response<Body>, ApiError> {
    let deployment = placement.deployment();
    let answer = asked.ask(context, deployment).await;
    if !may_fall_back(placement) {
        return answer;
    }
    let is_remote = matches!(deployment.target, Target::Remote(_));
    let begun = match answer {
        Ok(answer) if is_failure(answer.status(), is_remote) => Err(answer.status()),
        // A local answer has begun when its head comes.
        Ok(answer) if is_remote && answer.status().is_success() => {
            let limit = gateway.releases().config().max_answer;
            body::hold(answer, &context.outcome, limit).await
        }
        Err(error) if is_failure(error.status(), false) => Err(error.status()),
        other => return other,
    };
    match begun {
        Ok(answer) => Ok(answer),
        Err(failure) => {
            fall_back(context, placement, failure);
            asked.ask(context, placement.deployment()).await
        }
    }
}

/// From here on stable answers. What the candidate answered must have been dropped.
pub(super) fn fall_back(context: &RequestContext, placement: &Placement, failure: StatusCode) {
    placement.release().candidate().series.retried_on_stable();
    placement.fall_back(failure);
    context.outcome.begin_again();
}

/// Whether stable may do better. Of an upstream's 4xx those count that are about our own
/// key, model's name or rate there, which is nothing that the client could mend.
pub(super) fn is_failure(status: StatusCode, is_remote: bool) -> bool {
    let ours = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_server_error() || is_remote && ours.contains(&status)
}

/// Whether a candidate that failed may be replaced: not where the request named it.
pub(super) fn may_fall_back(placement: &Placement) -> bool {
    let pick = placement.pick();
    pick.side == Side::Candidate && pick.assignment != Assignment::Named
}

/// Whether a copy of a request will be asked for.
fn is_copied(gateway: &Gateway, asked: &Asked) -> bool {
    let watch = gateway.releases();
    if !Kind::Model(asked.protocol).is_comparable() || watch.config().shadow_concurrency == 0 {
        return false;
    }
    let obstacle = if asked.body.len() > watch.config().shadow_max_body {
        Shadowing::Large
    } else if gateway.admission().is_busy() {
        Shadowing::Busy
    } else {
        return true;
    };
    gateway.metrics().shadow(obstacle);
    false
}
