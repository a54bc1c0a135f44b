//! Evaluations, prompt versions, runs and their samples. Those whose test set the caller may not see are not there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::datasets::refer_version;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Paging, limit_of};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_object, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, Summaries, filter, of_models, serve, serve_reads};
use crate::domain::Verdict;
use crate::domain::record::{
    Access, Evaluation, EvaluationMethod, EvaluationRun, Model, Principal, PromptVersion,
};
use crate::domain::roles::Verb;
use crate::domain::run::RunStatus;
use crate::id::DatasetVersionId;
use crate::store::{Column as _, EvaluationSample, Json, Listing, SampleFilter, Stored, Viewer};
use crate::time::Timestamp;

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Evaluation>(
        api,
        &Summaries {
            list: "List evaluations",
            show: "Show an evaluation",
            create: "Define an evaluation: test set, metrics, thresholds",
            update: "Change an evaluation; evidence under the old policy no longer counts",
            delete: "Put an evaluation away",
        },
    );
    serve_reads::<EvaluationRun>(api, "List evaluation runs", "Show an evaluation run");
    api.route(
        get(
            "/evaluation_runs/{id}/samples",
            Verb::View,
            "The inputs and outputs of a run, filtered",
        ),
        samples,
    );
    api.route(
        post(
            "/evaluation_runs/{id}/withdraw",
            Verb::ApproveVersion,
            "Withdraw a run as evidence",
        ),
        withdraw,
    );
    api.route(
        get(
            "/models/{id}/prompts",
            Verb::View,
            "List a model's prompt versions",
        ),
        prompts,
    );
    api.route(
        post(
            "/models/{id}/prompts",
            Verb::EditCatalogue,
            "Add the next version of a prompt",
        ),
        add_prompt,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluationFields {
    /// Id or name.
    pub model: String,
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default = "automatic")]
    pub method: EvaluationMethod,
    /// `dataset@v1`, or an id.
    #[serde(default)]
    pub test_set: Option<String>,
    #[serde(default = "object")]
    pub metrics: Value,
    #[serde(default = "object")]
    pub thresholds: Value,
    #[serde(default = "object")]
    pub settings: Value,
}

fn automatic() -> EvaluationMethod {
    EvaluationMethod::Automatic
}

fn object() -> Value {
    json!({})
}

filter!(EvaluationFilter {
    /// Id or name.
    model: String,
    name: String,
});

/// Only what stands on test sets that the caller may see.
fn on_visible_test_sets<R: crate::store::Record>(
    listing: Listing<R>,
    caller: &Caller,
) -> Listing<R> {
    listing.where_clause(
        format!(
            "test_set IS NULL OR test_set IN ({})",
            Viewer::dataset_versions()
        ),
        caller.viewer().values(),
    )
}

/// What evidence has to name: test set, metrics and thresholds as they are judged by.
pub(crate) fn policy_digest(
    test_set: Option<DatasetVersionId>,
    metrics: &Value,
    thresholds: &Value,
) -> String {
    // Sorted, so that the order in which fields were written does not matter.
    let policy =
        sorted(&json!({ "test_set": test_set, "metrics": metrics, "thresholds": thresholds }));
    format!("sha256:{:x}", Sha256::digest(policy.to_string()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            names
                .into_iter()
                .map(|name| (name.clone(), sorted(&fields[name])))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

impl Resource for Evaluation {
    type Fields = EvaluationFields;
    type Filter = EvaluationFilter;
    const COLLECTION: &'static str = "/evaluations";
    const ITEM: &'static str = "/evaluations/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::EditCatalogue;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        on_visible_test_sets(of_models(listing, caller), caller)
    }

    async fn select(
        desk: &Desk,
        filter: &EvaluationFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let model = desk
            .refer_if::<Model>("model", filter.model.as_deref())
            .await?;
        Ok(listing
            .is_if("model", model.as_ref())
            .is_if("name", filter.name.as_ref()))
    }

    fn fields(&self) -> EvaluationFields {
        EvaluationFields {
            model: self.model.to_string(),
            name: self.name.clone(),
            owner: self.owner.map(|id| id.to_string()),
            method: self.method,
            test_set: self.test_set.map(|id| id.to_string()),
            metrics: self.metrics.0.clone(),
            thresholds: self.thresholds.0.clone(),
            settings: self.settings.0.clone(),
        }
    }

    async fn build(
        desk: &Desk,
        fields: &EvaluationFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        check_object("metrics", &fields.metrics)?;
        check_object("thresholds", &fields.thresholds)?;
        check_object("settings", &fields.settings)?;
        let model = desk.refer::<Model>("model", &fields.model).await?;
        let owner = desk
            .refer_if::<Principal>("owner", fields.owner.as_deref())
            .await?;
        let test_set = match &fields.test_set {
            Some(text) => Some(refer_version(desk, "test_set", text, Access::Use).await?.id),
            None => None,
        };
        Ok(Self {
            model: model.id,
            owner: owner.or_else(|| current.is_none().then_some(desk.caller.principal)),
            name: fields.name.clone(),
            method: fields.method,
            test_set,
            policy_digest: policy_digest(test_set, &fields.metrics, &fields.thresholds),
            metrics: Json(fields.metrics.clone()),
            thresholds: Json(fields.thresholds.clone()),
            settings: Json(fields.settings.clone()),
        })
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

filter!(RunFilter {
    /// Id or name.
    evaluation: String,
    /// `model@v1`, or an id.
    model_version: String,
    status: RunStatus,
    verdict: Verdict,
});

impl Resource for EvaluationRun {
    type Fields = NoFields;
    type Filter = RunFilter;
    const COLLECTION: &'static str = "/evaluation_runs";
    const ITEM: &'static str = "/evaluation_runs/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::RunTask;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        let listing = on_visible_test_sets(listing, caller);
        match caller.scope() {
            Some(department) => listing.where_clause(
                "model_version IN (SELECT w.id FROM model_versions w JOIN models m ON m.id = w.model WHERE m.department = ?)"
                    .into(),
                vec![department.to_value()],
            ),
            None => listing,
        }
    }

    async fn select(
        desk: &Desk,
        filter: &RunFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let evaluation = desk
            .refer_if::<Evaluation>("evaluation", filter.evaluation.as_deref())
            .await?;
        let version = match &filter.model_version {
            Some(text) => Some(
                super::versions::refer_model_version(desk, "model_version", text)
                    .await?
                    .id,
            ),
            None => None,
        };
        Ok(listing
            .is_if("evaluation", evaluation.as_ref())
            .is_if("model_version", version.as_ref())
            .is_if("status", filter.status.as_ref())
            .is_if("verdict", filter.verdict.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("an evaluation run is made by an evaluation task"))
    }
}

/// Which samples of a run.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SampleQuery {
    /// A prompt version's id.
    prompt_version: Option<String>,
    passed: Option<bool>,
    /// The item's own id in the test set.
    item: Option<String>,
    score_below: Option<f64>,
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    cursor: Option<String>,
}

pub(super) fn checked_limit(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit_of(limit);
    if (1..=crate::store::MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::field(
            "limit",
            format!("is {limit}, should be 1 to {}", crate::store::MAX_LIMIT),
        ))
    }
}

async fn samples(call: Call<SampleQuery>) -> Result<Answer<Items<EvaluationSample>>, Problem> {
    let run = call.desk.find::<EvaluationRun>(call.segment("id")).await?;
    let limit = checked_limit(call.query.limit)?;
    let filter = SampleFilter {
        prompt_version: call.query.prompt_version,
        passed: call.query.passed,
        item: call.query.item,
        score_below: call.query.score_below,
        after: call.query.cursor,
    };
    let page = call.desk.store.samples(run.id, &filter, limit).await?;
    Ok(Answer::of(page.into()))
}

/// Why something is done; it is kept in the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    #[schemars(length(min = 1))]
    pub reason: String,
}

async fn withdraw(
    call: Call<NoQuery, Body<Reason>>,
) -> Result<Answer<Stored<EvaluationRun>>, Problem> {
    let run = call.desk.find::<EvaluationRun>(call.segment("id")).await?;
    let reason = call.body.0.reason;
    check_text("reason", &reason)?;
    if reason.trim().is_empty() {
        return Err(Problem::field("reason", "should say why"));
    }
    let actor = call.desk.actor().because(reason);
    let expected = call.expected.unwrap_or(run.version);
    let now = Timestamp::now();
    let stored = call
        .desk
        .store
        .update::<EvaluationRun>(&actor, run.id, Some(expected), |it| {
            it.withdrawn_at = it.withdrawn_at.or(Some(now));
        })
        .await?;
    Ok(Answer::record(stored))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptFields {
    #[schemars(length(min = 1, max = 128))]
    name: String,
    #[schemars(length(min = 1))]
    template: String,
    #[serde(default = "object")]
    sampling: Value,
    #[serde(default)]
    note: String,
}

async fn prompts(call: Call<Paging>) -> Result<Answer<Items<Stored<PromptVersion>>>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let listing = Listing::<PromptVersion>::new()
        .is("model", &model.id)
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor);
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn add_prompt(
    call: Call<NoQuery, Body<PromptFields>>,
) -> Result<Answer<Stored<PromptVersion>>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let fields = call.body.0;
    check_name("name", &fields.name)?;
    check_object("sampling", &fields.sampling)?;
    check_text("note", &fields.note)?;
    if fields.template.is_empty() {
        return Err(Problem::field("template", "should not be empty"));
    }
    let said = sorted(&json!({ "template": fields.template, "sampling": fields.sampling }));
    let prompt = PromptVersion {
        model: model.id,
        author: Some(call.desk.caller.principal),
        name: fields.name,
        number: 0,
        digest: format!("sha256:{:x}", Sha256::digest(said.to_string())),
        template: fields.template,
        sampling: Json(fields.sampling),
        note: fields.note,
    };
    let mut tx = call.desk.store.begin().await?;
    let stored = tx.add_prompt_version(&call.desk.actor(), prompt).await?;
    tx.commit().await?;
    let place = format!("/models/{}/prompts", model.id);
    Ok(Answer::record(stored).at(place))
}
