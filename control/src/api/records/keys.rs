//! API keys: shown once, kept as a hash.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Nothing, limit_of};
use crate::api::input::check_label;
use crate::api::problem::Problem;
use crate::api::records::key_bounds as bounds;
use crate::api::registry::{Registry, delete, get, post};
use crate::api::resource::filter;
use crate::domain::record::{ApiKey, Principal, Scope};
use crate::domain::roles::Verb;
use crate::id::{ApiKeyId, PrincipalId};
use crate::store::{Column as _, IssuedKey, Listing, Stored};
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
    api.route(
        delete(
            "/keys/{id}",
            verb,
            "Withdraw a key, and with it the keys that it made for its own principal",
        ),
        remove,
    );
    api.route(
        post(
            "/keys/{id}/rotate",
            verb,
            "Make the next key of a key's line; the old one ends after an overlap",
        ),
        rotate,
    );
}

filter!(KeyFilter {
    /// Whose, by id or name; `*` for everyone's. If absent, everyone's for who may manage people, else the caller's own.
    principal: String,
    /// Only those that were made with this key, by its id; `file:` and an id for one of the keys file.
    made_by: String,
});

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFields {
    /// What it is for, in 1 to 128 bytes.
    #[schemars(length(min = 1, max = 128), example = &"laptop")]
    pub name: String,
    /// Whose, by id or name; the caller's own if absent.
    #[serde(default)]
    #[schemars(example = &"robot")]
    pub principal: Option<String>,
    /// What it may be used for; all if absent, and no more than the key that asks.
    #[serde(default)]
    #[schemars(length(min = 1), example = ["inference"])]
    pub scopes: Option<Vec<Scope>>,
    /// When it ends; never if absent, and no later than the key that asks.
    #[serde(default)]
    #[schemars(example = &"2030-01-01T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
    /// Deployments that it may ask, by endpoint; all that its principal may if absent, none if the list is empty.
    #[serde(default)]
    #[schemars(length(max = 256), example = ["helpdesk"])]
    pub models: Option<Vec<String>>,
    /// Requests in a minute; without limit if absent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), example = 60)]
    pub requests_per_minute: Option<i64>,
    /// Tokens in a minute, of prompts and answers; without limit if absent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64), example = 20_000)]
    pub tokens_per_minute: Option<i64>,
    /// Requests in a calendar month (UTC); without limit if absent.
    #[serde(default)]
    #[schemars(range(min = 0), example = 100_000)]
    pub requests_per_month: Option<i64>,
    /// Tokens in a calendar month (UTC), of prompts and answers; without limit if absent.
    #[serde(default)]
    #[schemars(range(min = 0), example = 1_000_000)]
    pub tokens_per_month: Option<i64>,
}

/// How a key is rotated.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Seconds that the old key still counts; it ends at once if absent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000), example = 3600)]
    pub overlap_seconds: u32,
}

/// A key that was just made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NewKey {
    key: Stored<ApiKey>,
    /// Send it as `Authorization: Bearer …`. `null` in the answer to a repeated request: it is not kept.
    secret: Option<String>,
}

/// A principal whose keys the caller may manage.
pub(super) async fn owner(desk: &Desk, text: Option<&str>) -> Result<PrincipalId, Problem> {
    let Some(text) = text else {
        return Ok(desk.caller.principal);
    };
    let person = desk.refer::<Principal>("principal", text).await?;
    if person.id != desk.caller.principal {
        desk.caller.check(Verb::ManagePeople, desk.writes)?;
        if desk.writes {
            desk.caller.cleared("principal", person.clearance)?;
        }
    }
    Ok(person.id)
}

async fn list(call: Call<KeyFilter>) -> Result<Answer<Items<Stored<ApiKey>>>, Problem> {
    let mut listing = Listing::<ApiKey>::new()
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor.clone());
    if call.query.oldest_first == Some(true) {
        listing = listing.oldest_first();
    }
    listing = match call.query.principal.as_deref() {
        None if call.desk.caller.role.may(Verb::ManagePeople) => listing,
        Some("*") => {
            call.desk.caller.check(Verb::ManagePeople, false)?;
            listing
        }
        whose => listing.is("principal", &owner(&call.desk, whose).await?),
    }
    .is_if("made_by", call.query.made_by.as_ref());
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn find(desk: &Desk, text: &str) -> Result<Stored<ApiKey>, Problem> {
    let key = match text.parse::<ApiKeyId>() {
        Ok(id) => desk.store.get::<ApiKey>(id).await?,
        Err(_) => key_named(desk, text).await?,
    };
    if key.principal != desk.caller.principal && !desk.caller.role.may(Verb::ManagePeople) {
        return Err(Problem::not_found("api key", text));
    }
    Ok(key)
}

/// One that has not expired: of the caller's own, or else, for who may manage people, of anyone's.
async fn key_named(desk: &Desk, name: &str) -> Result<Stored<ApiKey>, Problem> {
    let own = named(desk, name, Some(desk.caller.principal)).await;
    let unknown = |problem: &Problem| problem.status() == http::StatusCode::NOT_FOUND;
    match own {
        Err(problem) if unknown(&problem) && desk.caller.role.may(Verb::ManagePeople) => {
            named(desk, name, None).await
        }
        own => own,
    }
}

async fn named(
    desk: &Desk,
    name: &str,
    whose: Option<PrincipalId>,
) -> Result<Stored<ApiKey>, Problem> {
    let mut found = in_force(desk, name, whose).await?;
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(Problem::conflict(
            "ambiguous",
            format!("there are several keys called {name}; name one by its id"),
        )),
        (None, _) => Err(Problem::not_found("api key", name)),
    }
}

/// Two at most that have not expired, the newest first.
pub(super) async fn in_force(
    desk: &Desk,
    name: &str,
    whose: Option<PrincipalId>,
) -> Result<Vec<Stored<ApiKey>>, Problem> {
    let listing = Listing::<ApiKey>::new()
        .is_if("principal", whose.as_ref())
        .is("name", &name.to_owned())
        .where_clause(
            "expires_at IS NULL OR expires_at > ?".into(),
            vec![Timestamp::now().to_value()],
        )
        .limit(2);
    Ok(desk.store.list(&listing).await?.items)
}

async fn show(call: Call) -> Result<Answer<Stored<ApiKey>>, Problem> {
    find(&call.desk, call.segment("id"))
        .await
        .map(Answer::record)
}

async fn create(call: Call<NoQuery, Body<KeyFields>>) -> Result<Answer<NewKey>, Problem> {
    let desk = &call.desk;
    let new = asked(desk, &call.body.0).await?;
    let issued = desk.store.issue(&desk.actor(), new).await?;
    Ok(shown_once(issued))
}

/// The key that these fields ask for, if the caller may make it.
pub(super) async fn asked(
    desk: &Desk,
    fields: &KeyFields,
) -> Result<crate::store::NewKey, Problem> {
    if fields.name.is_empty() || fields.name.len() > 128 {
        return Err(Problem::field("name", "should have 1 to 128 bytes"));
    }
    check_label("name", &fields.name)?;
    if fields.expires_at.is_some_and(|end| end <= Timestamp::now()) {
        return Err(Problem::field("expires_at", "should be in the future"));
    }
    let principal = owner(desk, fields.principal.as_deref()).await?;
    bounds::new_key(&desk.caller, principal, fields)
}

fn shown_once(issued: IssuedKey) -> Answer<NewKey> {
    let place = format!("/keys/{}", issued.key.id);
    let kept = serde_json::json!({ "key": issued.key, "secret": null });
    let mut answer = Answer::of(NewKey {
        key: issued.key,
        secret: Some(issued.secret),
    })
    .at(place);
    answer.kept = Some(kept);
    answer
}

async fn rotate(call: Call<NoQuery, Body<Rotation>>) -> Result<Answer<NewKey>, Problem> {
    let desk = &call.desk;
    let old = find(desk, call.segment("id")).await?;
    owner(desk, Some(&old.principal.to_string())).await?;
    let overlap = call.body.0.overlap_seconds;
    if overlap > LONGEST_OVERLAP {
        return Err(Problem::field(
            "overlap_seconds",
            format!("should be at most {LONGEST_OVERLAP}: thirty days"),
        ));
    }
    let now = Timestamp::now();
    if old.expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::conflict(
            "expired",
            "the key has expired; make a new one",
        ));
    }
    bounds::within(&desk.caller, &old)?;
    let end = now.after(std::time::Duration::from_secs(overlap.into()));
    let mut tx = desk.store.begin().await?;
    let issued = tx
        .issue(&desk.actor(), crate::store::NewKey::after(&old))
        .await?;
    let expected = call.expected.unwrap_or(old.version);
    tx.update::<ApiKey>(&desk.actor(), old.id, Some(expected), |key| {
        key.expires_at = Some(key.expires_at.map_or(end, |sooner| sooner.min(end)));
    })
    .await?;
    tx.commit().await?;
    Ok(shown_once(issued))
}

/// Seconds.
const LONGEST_OVERLAP: u32 = 30 * 24 * 3600;

async fn remove(call: Call) -> Result<Answer<Nothing>, Problem> {
    let key = find(&call.desk, call.segment("id")).await?;
    let expected = call.expected.unwrap_or(key.version);
    call.desk
        .store
        .delete::<ApiKey>(&call.desk.actor(), key.id, Some(expected))
        .await?;
    Ok(Answer::of(Nothing {}))
}
