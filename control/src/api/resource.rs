//! What all records have in common over HTTP: they are listed, shown, made, changed and put away. A kind of record
//! says which fields it has, who may know of it, and how its fields are checked.

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Answer, Body, Call, Desk, Items, NoQuery, Nothing, Patch, limit_of};
use super::caller::Caller;
use super::problem::Problem;
use super::registry::{Registry, delete, get, patch, post};
use crate::domain::record::Principal;
use crate::domain::roles::Verb;
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetVersionId, Id, PrincipalId};
use crate::store::{Column, Listing, Record, Stored, Tx, Viewer};

/// The page and order that every list takes.
pub(super) trait Pages {
    fn limit(&self) -> Option<u32>;
    fn cursor(&self) -> Option<String>;
    fn oldest_first(&self) -> bool;
}

/// A list's query: its own filters, then limit, cursor and order.
macro_rules! filter {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub $field: Option<$kind>,)*
            /// Items a page, 1 to 500; 50 if absent.
            #[schemars(range(min = 1, max = 500))]
            pub limit: Option<u32>,
            /// The `next_cursor` of the page before.
            pub cursor: Option<String>,
            /// `true`: oldest first.
            pub oldest_first: Option<bool>,
        }
        impl $crate::api::resource::Pages for $name {
            fn limit(&self) -> Option<u32> {
                self.limit
            }
            fn cursor(&self) -> Option<String> {
                self.cursor.clone()
            }
            fn oldest_first(&self) -> bool {
                self.oldest_first.unwrap_or(false)
            }
        }
    };
}
pub(super) use filter;

/// A kind of record that the API serves.
pub(super) trait Resource: Record {
    /// What a client sets. Records that it refers to are named by id or by name.
    type Fields: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    type Filter: Pages + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// `/models`.
    const COLLECTION: &'static str;
    /// `/models/{id}`.
    const ITEM: &'static str;
    /// The column that it is called by beside the id; `id` where it has no name.
    const NAME: &'static str;
    /// The right to make, change and put away.
    const EDIT: Verb;
    /// The right to see.
    const VIEW: Verb = Verb::View;

    /// Only those that the caller may know of.
    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self>;

    /// Only those that the query asks for.
    fn select(
        desk: &Desk,
        filter: &Self::Filter,
        listing: Listing<Self>,
    ) -> impl Future<Output = Result<Listing<Self>, Problem>> + Send;

    /// The clearance that it takes to touch it, where that is more than to see it.
    fn takes(&self) -> Option<Secrecy> {
        None
    }

    fn fields(&self) -> Self::Fields;

    /// A record of these fields: a new one, or `current` changed.
    fn build(
        desk: &Desk,
        fields: &Self::Fields,
        current: Option<&Self>,
    ) -> impl Future<Output = Result<Self, Problem>> + Send;

    /// The record that these fields are meant to describe, if there is one already: for `apply`.
    fn existing(
        desk: &Desk,
        fields: &Self::Fields,
    ) -> impl Future<Output = Result<Option<Stored<Self>>, Problem>> + Send {
        async move {
            let name = serde_json::to_value(fields)
                .ok()
                .and_then(|fields| Some(fields[Self::NAME].as_str()?.to_owned()));
            let Some(name) = name else { return Ok(None) };
            match desk.find::<Self>(&name).await {
                Ok(stored) => Ok(Some(stored)),
                Err(problem) if problem.status() == http::StatusCode::NOT_FOUND => Ok(None),
                Err(problem) => Err(problem),
            }
        }
    }

    /// Whether the caller may change it so: what takes more than the right to edit its kind.
    fn changeable(
        _desk: &Desk,
        _stored: &Stored<Self>,
        _fields: &Self::Fields,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        async { Ok(()) }
    }

    /// What [`written`](Self::written) has to know beside the fields. Looked up before anything is written: a
    /// transaction that is part of another has its connection alone.
    fn looked_up(
        _desk: &Desk,
        _fields: &Self::Fields,
    ) -> impl Future<Output = Result<LookedUp, Problem>> + Send {
        async { Ok(LookedUp::default()) }
    }

    /// What is written along with the record.
    fn written(
        _desk: &Desk,
        _tx: &mut Tx,
        _fields: &Self::Fields,
        _stored: &Stored<Self>,
        _known: &LookedUp,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        async { Ok(()) }
    }

    /// Whether it may be put away.
    fn removable(
        _desk: &Desk,
        _stored: &Stored<Self>,
    ) -> impl Future<Output = Result<(), Problem>> + Send {
        async { Ok(()) }
    }
}

/// Records that others name.
#[derive(Debug, Default)]
pub(super) struct LookedUp {
    pub data: Vec<DatasetVersionId>,
}

impl Caller {
    pub(super) fn viewer(&self) -> Viewer {
        Viewer {
            principal: self.principal,
            department: self.role.may(Verb::View).then_some(self.department),
            clearance: self.clearance,
            admin: self.is_admin(),
        }
    }
}

/// Restricts to the caller's department by the column `department`.
pub(super) fn in_department<R: Record>(listing: Listing<R>, caller: &Caller) -> Listing<R> {
    listing.is_if("department", caller.scope().as_ref())
}

/// Restricts to records of models of the caller's department.
pub(super) fn of_models<R: Record>(listing: Listing<R>, caller: &Caller) -> Listing<R> {
    match caller.scope() {
        Some(department) => listing.where_clause(
            "model IN (SELECT m.id FROM models m WHERE m.department = ?)".into(),
            vec![department.to_value()],
        ),
        None => listing,
    }
}

/// What is found, if a request that writes may take it up: nothing beyond the caller's clearance.
fn taken<R: Resource>(desk: &Desk, found: Stored<R>) -> Result<Stored<R>, Problem> {
    if let (true, Some(secrecy)) = (desk.writes, found.takes()) {
        desk.caller.cleared(R::Id::KIND, secrecy)?;
    }
    Ok(found)
}

impl Desk {
    /// The record that a client calls `text`: by id, or by name. What it may not know of is not there.
    pub(super) async fn find<R: Resource>(&self, text: &str) -> Result<Stored<R>, Problem> {
        let listing = R::restrict(Listing::<R>::new(), &self.caller).limit(2);
        let found = match text.parse::<R::Id>() {
            Ok(id) => self.store.list(&listing.is("id", &id)).await?.items,
            Err(error) if R::NAME == "id" || looks_like_id(text) => {
                return Err(Problem::new(
                    http::StatusCode::NOT_FOUND,
                    "not_found",
                    error.to_string(),
                ));
            }
            Err(_) => {
                let listing = listing.is(R::NAME, &text.to_owned());
                self.store.list(&listing).await?.items
            }
        };
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(only), None) => taken(self, only),
            // Of the same digest, and so the same bytes.
            (Some(first), Some(_)) if R::NAME == "digest" => taken(self, first),
            (Some(_), Some(_)) => Err(Problem::conflict(
                "ambiguous",
                format!(
                    "there are several {}s called {text}; name one by its id",
                    R::Id::KIND
                ),
            )),
            (None, _) => Err(Problem::not_found(R::Id::KIND, text)),
        }
    }

    /// The same for a field of a body: it is the field that is at fault.
    pub(super) async fn refer<R: Resource>(
        &self,
        field: &str,
        text: &str,
    ) -> Result<Stored<R>, Problem> {
        self.find::<R>(text).await.map_err(|problem| {
            if problem.status() == http::StatusCode::NOT_FOUND {
                let shown: String = text.chars().take(64).collect();
                Problem::field(field, format!("there is no {} {shown}", R::Id::KIND))
            } else {
                problem
            }
        })
    }

    /// The same for a field that may be absent.
    pub(super) async fn refer_if<R: Resource>(
        &self,
        field: &str,
        text: Option<&str>,
    ) -> Result<Option<R::Id>, Problem> {
        match text {
            Some(text) => Ok(Some(self.refer::<R>(field, text).await?.id)),
            None => Ok(None),
        }
    }

    /// The same for a field that may stay as it is: who changes something else need not know of what it names.
    pub(super) async fn refer_or_keep<R: Resource>(
        &self,
        field: &str,
        text: Option<&str>,
        kept: Option<R::Id>,
    ) -> Result<Option<R::Id>, Problem> {
        match kept {
            Some(kept) if text == Some(kept.to_string().as_str()) => Ok(Some(kept)),
            _ => self.refer_if::<R>(field, text).await,
        }
    }
}

/// A record is given away by its owner, or by an administrator; one without an owner may be taken.
pub(super) async fn check_owner(
    desk: &Desk,
    owner: Option<PrincipalId>,
    named: Option<&str>,
) -> Result<(), Problem> {
    let next = desk
        .refer_or_keep::<Principal>("owner", named, owner)
        .await?;
    let may = owner.is_none() || owner == Some(desk.caller.principal) || desk.caller.is_admin();
    if next == owner || may {
        return Ok(());
    }
    Err(Problem::forbidden(
        "owner: is changed by the owner, or by an administrator",
    ))
}

fn looks_like_id(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(prefix, digits)| {
        digits.len() == 26 && crate::id::KINDS.iter().any(|(known, _)| *known == prefix)
    })
}

/// What the routes of a kind are called in the document.
pub(super) struct Summaries {
    pub list: &'static str,
    pub show: &'static str,
    pub create: &'static str,
    pub update: &'static str,
    pub delete: &'static str,
}

/// The five routes of a kind of record.
pub(super) fn serve<R: Resource>(api: &mut Registry, summaries: &Summaries) {
    serve_reads::<R>(api, summaries.list, summaries.show);
    api.route(post(R::COLLECTION, R::EDIT, summaries.create), create::<R>);
    api.route(patch(R::ITEM, R::EDIT, summaries.update), update::<R>);
    api.route(delete(R::ITEM, R::EDIT, summaries.delete), remove::<R>);
}

/// The two routes of a kind that is only looked at.
pub(super) fn serve_reads<R: Resource>(
    api: &mut Registry,
    list_summary: &'static str,
    show_summary: &'static str,
) {
    api.route(get(R::COLLECTION, R::VIEW, list_summary), list::<R>);
    api.route(get(R::ITEM, R::VIEW, show_summary), show::<R>);
}

pub(super) fn page_of<R: Resource>(filter: &R::Filter, caller: &Caller) -> Listing<R> {
    let listing = R::restrict(Listing::new(), caller)
        .limit(limit_of(filter.limit()))
        .after(filter.cursor());
    if filter.oldest_first() {
        listing.oldest_first()
    } else {
        listing
    }
}

pub(super) async fn list<R: Resource>(
    call: Call<R::Filter>,
) -> Result<Answer<Items<Stored<R>>>, Problem> {
    let listing = page_of::<R>(&call.query, &call.desk.caller);
    let listing = R::select(&call.desk, &call.query, listing).await?;
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn show<R: Resource>(call: Call<NoQuery>) -> Result<Answer<Stored<R>>, Problem> {
    let stored = call.desk.find::<R>(call.segment("id")).await?;
    Ok(Answer::record(stored))
}

async fn create<R: Resource>(
    call: Call<NoQuery, Body<R::Fields>>,
) -> Result<Answer<Stored<R>>, Problem> {
    let stored = made::<R>(&call.desk, &call.body.0).await?;
    let place = format!("{}/{}", R::COLLECTION, stored.id);
    Ok(Answer::record(stored).at(place))
}

/// Checks the fields and makes the record.
pub(super) async fn made<R: Resource>(
    desk: &Desk,
    fields: &R::Fields,
) -> Result<Stored<R>, Problem> {
    let record = R::build(desk, fields, None).await?;
    let known = R::looked_up(desk, fields).await?;
    let mut tx = desk.store.begin().await?;
    let stored = tx.create(&desk.actor(), record).await?;
    R::written(desk, &mut tx, fields, &stored, &known).await?;
    tx.commit().await?;
    Ok(stored)
}

async fn update<R: Resource>(
    call: Call<NoQuery, Patch<R::Fields>>,
) -> Result<Answer<Stored<R>>, Problem> {
    let before = call.desk.find::<R>(call.segment("id")).await?;
    let fields = call.body.over(&before.record.fields())?;
    changed::<R>(&call.desk, &before, &fields, call.expected)
        .await
        .map(Answer::record)
}

/// Checks the fields and changes the record. Without an expected version the one that was just read counts:
/// a change made in between is not overwritten.
pub(super) async fn changed<R: Resource>(
    desk: &Desk,
    before: &Stored<R>,
    fields: &R::Fields,
    expected: Option<i64>,
) -> Result<Stored<R>, Problem> {
    R::changeable(desk, before, fields).await?;
    let record = R::build(desk, fields, Some(&before.record)).await?;
    let known = R::looked_up(desk, fields).await?;
    let expected = expected.unwrap_or(before.version);
    let mut tx = desk.store.begin().await?;
    let stored = tx
        .update::<R>(&desk.actor(), before.id, Some(expected), |it| *it = record)
        .await?;
    R::written(desk, &mut tx, fields, &stored, &known).await?;
    tx.commit().await?;
    Ok(stored)
}

async fn remove<R: Resource>(call: Call<NoQuery>) -> Result<Answer<Nothing>, Problem> {
    let stored = call.desk.find::<R>(call.segment("id")).await?;
    R::removable(&call.desk, &stored).await?;
    let expected = call.expected.unwrap_or(stored.version);
    call.desk
        .store
        .delete::<R>(&call.desk.actor(), stored.id, Some(expected))
        .await?;
    Ok(Answer::of(Nothing {}))
}
