//! Quotas, what was used, and the audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evaluation_runs::checked_limit;
use crate::api::call::{Answer, Call, Desk, Items};
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, Summaries, filter, serve};
use crate::domain::record::{Department, Deployment, Principal, Quota};
use crate::domain::roles::Verb;
use crate::id::AuditEventId;
use crate::store::{
    AuditEvent, AuditFilter, Column as _, Listing, Stored, UsageEntry, UsageFilter, UsageGroup,
    UsageSum,
};
use crate::time::Timestamp;

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Quota>(
        api,
        &Summaries {
            list: "List quotas",
            show: "Show a quota",
            create: "Limit a department or a person",
            update: "Change a quota; null lifts a limit",
            delete: "Lift a quota",
        },
    );
    api.route(
        get(
            "/usage",
            Verb::ViewUsage,
            "What was used, summed: in all, or by hour, day, department, …",
        ),
        usage,
    );
    api.route(
        get(
            "/usage/entries",
            Verb::ViewUsage,
            "The ledger, newest first",
        ),
        entries,
    );
    api.route(
        get(
            "/audit",
            Verb::ViewAudit,
            "Who did what to which record, newest first",
        ),
        audit,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaFields {
    /// The department that it limits, by id or name; exactly one of department and principal.
    #[serde(default)]
    #[schemars(example = &"it")]
    pub department: Option<String>,
    /// The person that it limits, by id or name; exactly one of department and principal.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub principal: Option<String>,
    /// Requests in a minute.
    #[serde(default)]
    #[schemars(range(min = 0), example = 600)]
    pub requests_per_minute: Option<i64>,
    /// Tokens in a minute, of prompts and answers.
    #[serde(default)]
    #[schemars(range(min = 0), example = 100_000)]
    pub tokens_per_minute: Option<i64>,
    /// Requests in a calendar month (UTC).
    #[serde(default)]
    #[schemars(range(min = 0), example = 1_000_000)]
    pub requests_per_month: Option<i64>,
    /// Tokens in a calendar month (UTC), of prompts and answers.
    #[serde(default)]
    #[schemars(range(min = 0), example = 50_000_000)]
    pub tokens_per_month: Option<i64>,
    /// Thousandths of a core of all its deployments together; asked when a work order is approved.
    #[serde(default)]
    #[schemars(range(min = 0), example = 16_000)]
    pub cpu_millis: Option<i64>,
    /// GPUs of all its deployments together; asked when a work order is approved.
    #[serde(default)]
    #[schemars(range(min = 0), example = 2)]
    pub gpus: Option<i64>,
    /// Bytes of memory of all its deployments together; asked when a work order is approved.
    #[serde(default)]
    #[schemars(range(min = 0), example = 68_719_476_736_i64)]
    pub memory_bytes: Option<i64>,
    /// Not enforced yet, and refused until it is: bytes of stored content.
    #[serde(default)]
    #[schemars(range(min = 0), example = 1_099_511_627_776_i64)]
    pub storage_bytes: Option<i64>,
    /// Not enforced yet, and refused until it is: money in a calendar month, in millionths.
    #[serde(default)]
    #[schemars(range(min = 0), example = 100_000_000)]
    pub cost_micros_per_month: Option<i64>,
}

filter!(QuotaFilter {
    /// Of this department, by id or name.
    department: String,
    /// Of this person, by id or name.
    principal: String,
});

/// A limit that nothing enforces would be believed. One that an earlier version took may stay as it is.
fn check_enforced(fields: &QuotaFields, current: Option<&Quota>) -> Result<(), Problem> {
    for (field, asked, stored) in [
        (
            "storage_bytes",
            fields.storage_bytes,
            current.and_then(|it| it.storage_bytes),
        ),
        (
            "cost_micros_per_month",
            fields.cost_micros_per_month,
            current.and_then(|it| it.cost_micros_per_month),
        ),
    ] {
        if asked.is_some() && asked != stored {
            return Err(Problem::field(
                field,
                "is not enforced yet, so it is not taken; leave it out",
            ));
        }
    }
    Ok(())
}

impl Resource for Quota {
    type Fields = QuotaFields;
    type Filter = QuotaFilter;
    const COLLECTION: &'static str = "/quotas";
    const ITEM: &'static str = "/quotas/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::ManageQuota;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        match caller.scope() {
            Some(department) => listing.where_clause(
                "department = ? OR principal IN (SELECT p.id FROM principals p WHERE p.department = ?)".into(),
                vec![department.to_value(), department.to_value()],
            ),
            None => listing,
        }
    }

    async fn select(
        desk: &Desk,
        filter: &QuotaFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let department = desk
            .refer_if::<Department>("department", filter.department.as_deref())
            .await?;
        let principal = desk
            .refer_if::<Principal>("principal", filter.principal.as_deref())
            .await?;
        Ok(listing
            .is_if("department", department.as_ref())
            .is_if("principal", principal.as_ref()))
    }

    fn fields(&self) -> QuotaFields {
        QuotaFields {
            department: self.department.map(|id| id.to_string()),
            principal: self.principal.map(|id| id.to_string()),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            requests_per_month: self.requests_per_month,
            tokens_per_month: self.tokens_per_month,
            cpu_millis: self.cpu_millis,
            gpus: self.gpus,
            memory_bytes: self.memory_bytes,
            storage_bytes: self.storage_bytes,
            cost_micros_per_month: self.cost_micros_per_month,
        }
    }

    async fn build(
        desk: &Desk,
        fields: &QuotaFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        if fields.principal.is_some() == fields.department.is_some() {
            return Err(Problem::field(
                "principal",
                "name either a principal or a department",
            ));
        }
        check_enforced(fields, current)?;
        let quota = Self {
            department: desk
                .refer_if::<Department>("department", fields.department.as_deref())
                .await?,
            principal: desk
                .refer_if::<Principal>("principal", fields.principal.as_deref())
                .await?,
            requests_per_minute: fields.requests_per_minute,
            tokens_per_minute: fields.tokens_per_minute,
            requests_per_month: fields.requests_per_month,
            tokens_per_month: fields.tokens_per_month,
            cpu_millis: fields.cpu_millis,
            gpus: fields.gpus,
            memory_bytes: fields.memory_bytes,
            storage_bytes: fields.storage_bytes,
            cost_micros_per_month: fields.cost_micros_per_month,
        };
        quota.check()?;
        if current.is_none() && quota.limits_nothing() {
            return Err(Problem::field(
                "requests_per_minute",
                "is absent, and so is every other limit; name one, such as tokens_per_month",
            ));
        }
        Ok(quota)
    }

    async fn existing(desk: &Desk, fields: &QuotaFields) -> Result<Option<Stored<Self>>, Problem> {
        let department = desk
            .refer_if::<Department>("department", fields.department.as_deref())
            .await?;
        let principal = desk
            .refer_if::<Principal>("principal", fields.principal.as_deref())
            .await?;
        let listing = Self::restrict(Listing::new(), &desk.caller)
            .is_if("department", department.as_ref())
            .is_if("principal", principal.as_ref())
            .limit(1);
        if department.is_none() && principal.is_none() {
            return Ok(None);
        }
        Ok(desk.store.list(&listing).await?.items.pop())
    }
}

/// Which use, and how it is summed.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct UsageQuery {
    /// From this instant on.
    from: Option<Timestamp>,
    /// Before this one.
    until: Option<Timestamp>,
    /// Id or name; one's own department unless an admin asks.
    department: Option<String>,
    /// Whose, by id or name.
    principal: Option<String>,
    /// What was asked, by id or endpoint.
    deployment: Option<String>,
    /// One line in all if absent.
    by: Option<UsageGroup>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct EntryQuery {
    /// From this instant on.
    from: Option<Timestamp>,
    /// Before this one.
    until: Option<Timestamp>,
    /// Id or name; one's own department unless an admin asks.
    department: Option<String>,
    /// Whose, by id or name.
    principal: Option<String>,
    /// What was asked, by id or endpoint.
    deployment: Option<String>,
    /// Items a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

async fn usage_filter(
    desk: &Desk,
    period: (Option<Timestamp>, Option<Timestamp>),
    names: [Option<&str>; 3],
) -> Result<UsageFilter, Problem> {
    let [department, principal, deployment] = names;
    if let (Some(from), Some(until)) = period
        && from >= until
    {
        return Err(Problem::field("until", "should be after from"));
    }
    let department = desk
        .refer_if::<Department>("department", department)
        .await?
        .or(desk.caller.scope());
    let principal = desk.refer_if::<Principal>("principal", principal).await?;
    let deployment = desk
        .refer_if::<Deployment>("deployment", deployment)
        .await?;
    Ok(UsageFilter {
        from: period.0,
        until: period.1,
        department: department.map(|id| id.to_string()),
        principal: principal.map(|id| id.to_string()),
        deployment: deployment.map(|id| id.to_string()),
    })
}

async fn usage(call: Call<UsageQuery>) -> Result<Answer<Items<UsageSum>>, Problem> {
    let query = &call.query;
    let names = [&query.department, &query.principal, &query.deployment].map(|it| it.as_deref());
    let filter = usage_filter(&call.desk, (query.from, query.until), names).await?;
    let items = call.desk.store.usage(&filter, query.by).await?;
    Ok(Answer::of(Items {
        items,
        next_cursor: None,
    }))
}

async fn entries(call: Call<EntryQuery>) -> Result<Answer<Items<UsageEntry>>, Problem> {
    let query = &call.query;
    let limit = checked_limit(query.limit)?;
    let names = [&query.department, &query.principal, &query.deployment].map(|it| it.as_deref());
    let filter = usage_filter(&call.desk, (query.from, query.until), names).await?;
    let page = call
        .desk
        .store
        .usage_entries(&filter, query.cursor.as_deref(), limit)
        .await?;
    Ok(Answer::of(page.into()))
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct AuditQuery {
    /// The id of a record.
    object: Option<String>,
    /// `model`, `model version`, `deployment`, …
    object_kind: Option<String>,
    /// Who did it, by id or name.
    actor: Option<String>,
    /// `create`, `update`, `delete`, or an event such as `approve`.
    verb: Option<String>,
    /// Items a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

async fn audit(call: Call<AuditQuery>) -> Result<Answer<Items<AuditEvent>>, Problem> {
    let (desk, query) = (&call.desk, call.query);
    let limit = checked_limit(query.limit)?;
    let actor = desk
        .refer_if::<Principal>("actor", query.actor.as_deref())
        .await?;
    let before = query
        .cursor
        .map(|cursor| cursor.parse::<AuditEventId>())
        .transpose()
        .map_err(|_| Problem::field("cursor", "is not one that a list of events gave"))?;
    let filter = AuditFilter {
        object: query.object,
        object_kind: query.object_kind,
        actor,
        verb: query.verb,
        before,
        viewer: Some(desk.caller.viewer()),
        department: desk.caller.scope(),
    };
    let items = desk.store.audit_events(&filter, limit).await?;
    let next_cursor = (items.len() == limit as usize)
        .then(|| items.last().map(|last| last.id.to_string()))
        .flatten();
    Ok(Answer::of(Items { items, next_cursor }))
}
