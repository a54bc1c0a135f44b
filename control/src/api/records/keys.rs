//! API keys: shown once, kept as a hash.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Nothing, limit_of};
use crate::api::input::check_label;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, delete, get, post};
use crate::api::resource::filter;
use crate::domain::record::{ApiKey, Principal, Scope};
use crate::domain::roles::Verb;
use crate::id::{ApiKeyId, PrincipalId};
use crate::store::{Listing, Stored};
use crate::time::Timestamp;

pub(crate) fn serve_all(api: &mut Registry) {
    let verb = Verb::ManageOwnKeys;
    api.route(
        get(
            "/keys",
            verb,
            "List keys: one's own, or with the right to manage people anyone's",
        ),
        list,
    );
    api.route(
        post(
            "/keys",
            verb,
            "Make a key; its secret is in this answer and never again",
        ),
        create,
    );
    api.route(
        get("/keys/{id}", verb, "Show a key, without its secret"),
        show,
    );
    api.route(delete("/keys/{id}", verb, "Withdraw a key"), remove);
}

filter!(KeyFilter {
    /// Whose; the caller's own if absent, `*` for everyone's.
    principal: String,
});

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFields {
    /// What it is for.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Whose, by id or name; the caller's own if absent.
    #[serde(default)]
    pub principal: Option<String>,
    /// All if absent.
    #[serde(default)]
    pub scopes: Option<Vec<Scope>>,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A key that was just made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NewKey {
    key: Stored<ApiKey>,
    /// Send it as `Authorization: Bearer …`. `null` in the answer to a repeated request: it is not kept.
    secret: Option<String>,
}

/// A principal whose keys the caller may manage.
async fn owner(desk: &Desk, text: Option<&str>) -> Result<PrincipalId, Problem> {
    let Some(text) = text else {
        return Ok(desk.caller.principal);
    };
    let person = desk.refer::<Principal>("principal", text).await?.id;
    if person != desk.caller.principal {
        desk.caller.check(Verb::ManagePeople, true)?;
    }
    Ok(person)
}

async fn list(call: Call<KeyFilter>) -> Result<Answer<Items<Stored<ApiKey>>>, Problem> {
    let mut listing = Listing::<ApiKey>::new()
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor.clone());
    if call.query.oldest_first == Some(true) {
        listing = listing.oldest_first();
    }
    listing = match call.query.principal.as_deref() {
        Some("*") => {
            call.desk.caller.check(Verb::ManagePeople, false)?;
            listing
        }
        whose => listing.is("principal", &owner(&call.desk, whose).await?),
    };
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn find(desk: &Desk, text: &str) -> Result<Stored<ApiKey>, Problem> {
    let id: ApiKeyId = text
        .parse()
        .map_err(|_| Problem::not_found("api key", text))?;
    let key = desk.store.get::<ApiKey>(id).await?;
    if key.principal != desk.caller.principal && !desk.caller.role.may(Verb::ManagePeople) {
        return Err(Problem::not_found("api key", text));
    }
    Ok(key)
}

async fn show(call: Call) -> Result<Answer<Stored<ApiKey>>, Problem> {
    find(&call.desk, call.segment("id"))
        .await
        .map(Answer::record)
}

async fn create(call: Call<NoQuery, Body<KeyFields>>) -> Result<Answer<NewKey>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    if fields.name.is_empty() || fields.name.len() > 128 {
        return Err(Problem::field("name", "should have 1 to 128 bytes"));
    }
    check_label("name", &fields.name)?;
    if fields.expires_at.is_some_and(|end| end <= Timestamp::now()) {
        return Err(Problem::field("expires_at", "should be in the future"));
    }
    let principal = owner(desk, fields.principal.as_deref()).await?;
    let scopes = fields.scopes.clone().unwrap_or_else(|| Scope::ALL.to_vec());
    // A key must not reach further than the one that made it.
    if let Some(own) = &desk.caller.scopes
        && let Some(scope) = scopes.iter().find(|scope| !own.contains(scope))
    {
        return Err(Problem::field(
            "scopes",
            format!("{scope} is beyond the key that asks"),
        ));
    }
    let issued = desk
        .store
        .issue_key(
            &desk.actor(),
            principal,
            &fields.name,
            scopes,
            fields.expires_at,
        )
        .await?;
    let place = format!("/keys/{}", issued.key.id);
    let kept = serde_json::json!({ "key": issued.key, "secret": null });
    let mut answer = Answer::of(NewKey {
        key: issued.key,
        secret: Some(issued.secret),
    })
    .at(place);
    answer.kept = Some(kept);
    Ok(answer)
}

async fn remove(call: Call) -> Result<Answer<Nothing>, Problem> {
    let key = find(&call.desk, call.segment("id")).await?;
    let expected = call.expected.unwrap_or(key.version);
    call.desk
        .store
        .delete::<ApiKey>(&call.desk.actor(), key.id, Some(expected))
        .await?;
    Ok(Answer::of(Nothing {}))
}
