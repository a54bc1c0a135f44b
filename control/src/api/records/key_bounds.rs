//! How far a key may reach that another makes: no further than that one, and no longer.

use super::keys::KeyFields;
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::domain::record::{ApiKey, Scope};
use crate::id::PrincipalId;
use crate::store::{KeyLimits, NewKey};
use crate::time::Timestamp;

/// Most deployments that a key names.
const MOST_MODELS: usize = 256;

/// The key that `fields` ask for, within the bounds of the one that asks. What is left open is as that one has it.
///
/// # Errors
/// 422, naming the field that is out of bounds.
pub(super) fn new_key(
    caller: &Caller,
    principal: PrincipalId,
    fields: &KeyFields,
) -> Result<NewKey, Problem> {
    let scopes = fields.scopes.clone().unwrap_or_else(|| Scope::ALL.to_vec());
    let models = fields.models.clone().or_else(|| caller.key.models.clone());
    let expires_at = fields.expires_at.or(caller.key.expires_at);
    check(caller, &scopes, models.as_deref(), expires_at)?;
    let line = caller.key.line.clone();
    // One of a key of the file ends with that one because it is the same principal.
    let of_file = line.as_ref().is_some_and(|line| line.starts_with("file:"));
    Ok(NewKey {
        scopes,
        models,
        expires_at,
        limits: limits(fields)?,
        ends_with_maker: line.is_some() && !of_file && principal == caller.principal,
        made_by: line,
        ..NewKey::new(principal, &fields.name, Vec::new())
    })
}

/// Whether a key that is there is within the bounds of the one that asks: whoever rotates it gets its secret.
///
/// # Errors
/// 422, naming what is out of bounds.
pub(super) fn within(caller: &Caller, key: &ApiKey) -> Result<(), Problem> {
    let models = key.models.as_ref().map(|models| models.0.as_slice());
    check(caller, &key.scopes.0, models, key.expires_at)
}

fn check(
    caller: &Caller,
    scopes: &[Scope],
    models: Option<&[String]>,
    expires_at: Option<Timestamp>,
) -> Result<(), Problem> {
    let beyond = |field: &str, what: &str| {
        Err(Problem::field(
            field,
            format!("{what} is beyond the key that asks"),
        ))
    };
    if scopes.is_empty() {
        return Err(Problem::field(
            "scopes",
            "is empty, so the key could do nothing; leave it out for all, or name some",
        ));
    }
    if let Some(own) = &caller.key.scopes
        && let Some(scope) = scopes.iter().find(|scope| !own.contains(scope))
    {
        return beyond("scopes", scope.word());
    }
    if models.is_some_and(|models| models.len() > MOST_MODELS) {
        return Err(Problem::field(
            "models",
            format!("should be at most {MOST_MODELS} endpoints"),
        ));
    }
    match (&caller.key.models, models) {
        (Some(own), Some(models)) => {
            if let Some(model) = models.iter().find(|model| !own.contains(model)) {
                return beyond("models", model);
            }
        }
        (Some(_), None) => return beyond("models", "every model"),
        (None, _) => {}
    }
    match (caller.key.expires_at, expires_at) {
        (Some(own), Some(end)) if end > own => beyond("expires_at", &end.to_string()),
        (Some(_), None) => beyond("expires_at", "never"),
        (Some(_) | None, _) => Ok(()),
    }
}

fn limits(fields: &KeyFields) -> Result<KeyLimits, Problem> {
    let most_a_minute = i64::from(u32::MAX);
    let given = [
        (
            "requests_per_minute",
            fields.requests_per_minute,
            most_a_minute,
        ),
        ("tokens_per_minute", fields.tokens_per_minute, most_a_minute),
        ("requests_per_month", fields.requests_per_month, i64::MAX),
        ("tokens_per_month", fields.tokens_per_month, i64::MAX),
    ];
    for (field, limit, most) in given {
        if limit.is_some_and(|limit| !(0..=most).contains(&limit)) {
            return Err(Problem::field(field, format!("should be 0 to {most}")));
        }
    }
    Ok(KeyLimits {
        requests_per_minute: fields.requests_per_minute,
        tokens_per_minute: fields.tokens_per_minute,
        requests_per_month: fields.requests_per_month,
        tokens_per_month: fields.tokens_per_month,
    })
}
