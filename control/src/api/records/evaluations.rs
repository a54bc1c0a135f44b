//! Evaluations and prompt versions. What is asked of a model is seen by all who see it, the test set's rows by who may.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::datasets::refer_version;
use super::requirements;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Paging, limit_of};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_object, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{LookedUp, Resource, Summaries, check_owner, filter, of_models, serve};
use crate::deploy::check_allowed;
use crate::domain::record::{
    Access, DatasetVersion, Evaluation, EvaluationMethod, Model, Principal, PromptVersion,
};
use crate::domain::roles::Verb;
use crate::evaluation::run::{
    InvalidPlan, Measures, RunSettings, check_pass, check_reach, check_sampling, compile,
    read_policy,
};
use crate::id::DatasetVersionId;
use crate::store::{Json, Listing, Stored, Tx};

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
    /// What is evaluated, by id or name.
    #[schemars(example = &"helpdesk")]
    pub model: String,
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"triage")]
    pub name: String,
    /// Who answers for it, by id or name; the caller if absent.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub owner: Option<String>,
    /// Who judges. `human` is not done yet, and refused until it is.
    #[serde(default = "automatic")]
    #[schemars(example = &"automatic")]
    pub method: EvaluationMethod,
    /// The rows that are asked, `dataset@v1` or an id; a run takes one.
    #[serde(default)]
    #[schemars(example = &"tickets@v1")]
    pub test_set: Option<String>,
    /// How rows are asked and what is measured; needed for a new one. `ask`: kind (chat, completion, likelihood, rank,
    /// retrieve, classify), file, corpus, columns, sampling. `measure`: a list of kinds (exact_match, token_f1, json_fields,
    /// bleu, chrf, rouge, accuracy, label_f1, ndcg, recall, mrr, map, likelihood, latency, first_token). Also `leading`,
    /// `judge` and `bootstrap`: docs/evaluation.md.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "ask": { "kind": "chat" }, "measure": [{ "kind": "exact_match" }] }))]
    pub metrics: Value,
    /// What has to be met, in the metric's own unit: most are shares from 0 to 1. `rules`, of which a run takes at least one:
    /// metric, min, max, on (point, bound), max_regression (by, alpha). Also `min_samples` and `max_unscored`.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "rules": [{ "metric": "exact_match/none", "min": 0.9 }], "min_samples": 30 }))]
    pub thresholds: Value,
    /// How the work is done: `concurrency`, `timeout_s`, `prompts`, `deployment`, `engine_options`.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "concurrency": 4, "prompts": ["triage@v1"] }))]
    pub settings: Value,
    /// Whether every version of the model has to pass it. A new one is required unless this says `false`; absent in a
    /// change, it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = false)]
    pub required: Option<bool>,
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
    /// The whole name.
    name: String,
});

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

/// What a run would refuse is refused at once, and what no run could meet. Thresholds that are still empty are not
/// decided yet. What an earlier version took may stay as it is.
fn check_measures(fields: &EvaluationFields, current: Option<&Evaluation>) -> Result<(), Problem> {
    let same = |of: fn(&Evaluation) -> &Value, now: &Value| current.is_some_and(|it| of(it) == now);
    if fields.method == EvaluationMethod::Human {
        return match current.is_some_and(|it| it.method == EvaluationMethod::Human) {
            true => Ok(()),
            false => Err(Problem::field(
                "method",
                "human is not done yet, so it is not taken: nobody would be asked; leave it out for automatic",
            )),
        };
    }
    if !same(|it| &it.settings.0, &fields.settings) {
        RunSettings::read(&fields.settings)?;
    }
    let measured = same(|it| &it.metrics.0, &fields.metrics);
    if measured && same(|it| &it.thresholds.0, &fields.thresholds) {
        return Ok(());
    }
    if is_empty(&fields.metrics) {
        return Err(Problem::field(
            "metrics",
            "is empty, so nothing would be measured; name a metric, such as {\"measure\": [{\"kind\": \"exact_match\"}]}",
        ));
    }
    let measures = Measures::read(&fields.metrics)?;
    check_pass(&measures)?;
    let prompts = fields.settings["prompts"].as_array();
    if prompts.is_some_and(|it| !it.is_empty()) && !measures.take_prompts() {
        return Err(Problem::field(
            "settings.prompts",
            "are for chat and completion; this evaluation sends the test set's text as it is",
        ));
    }
    if !is_empty(&fields.thresholds) {
        read_policy(&fields.thresholds, &measures)?;
        check_reach(&fields.thresholds, &measures)?;
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// A test set that is known to have fewer rows than a verdict takes gives none. What was not said is not held against it.
async fn check_samples(
    desk: &Desk,
    fields: &EvaluationFields,
    test_set: Option<DatasetVersionId>,
    current: Option<&Evaluation>,
) -> Result<(), Problem> {
    let least = fields.thresholds["min_samples"].as_i64();
    let (Some(least), Some(id)) = (least, test_set) else {
        return Ok(());
    };
    if current.is_some_and(|it| it.test_set == test_set && it.thresholds.0 == fields.thresholds) {
        return Ok(());
    }
    let rows = desk.store.get::<DatasetVersion>(id).await?.row_count;
    match (1..least).contains(&rows) {
        true => Err(Problem::field(
            "thresholds.min_samples",
            format!("is {least}, and the test set has {rows} rows, so no run could meet it"),
        )),
        false => Ok(()),
    }
}

impl From<InvalidPlan> for Problem {
    fn from(error: InvalidPlan) -> Self {
        Self::field(error.field, error.problem)
    }
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
        of_models(listing, caller)
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
            required: None,
        }
    }

    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        fields: &EvaluationFields,
    ) -> Result<(), Problem> {
        check_owner(desk, stored.owner, fields.owner.as_deref()).await
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
        check_measures(fields, current)?;
        if let Some(options) = fields.settings["engine_options"].as_object() {
            check_allowed(options, &desk.control.settings().allow)
                .map_err(|error| Problem::from(error).within("settings"))?;
        }
        let model = desk.refer::<Model>("model", &fields.model).await?;
        let kept = current.and_then(|it| it.owner);
        let owner = desk
            .refer_or_keep::<Principal>("owner", fields.owner.as_deref(), kept)
            .await?;
        let kept = current.and_then(|it| it.test_set);
        let test_set = match &fields.test_set {
            Some(text) if kept.is_some_and(|kept| *text == kept.to_string()) => kept,
            Some(text) => Some(refer_version(desk, "test_set", text, Access::Use).await?.id),
            None => None,
        };
        check_samples(desk, fields, test_set, current).await?;
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

    async fn written(
        desk: &Desk,
        tx: &mut Tx,
        fields: &EvaluationFields,
        stored: &Stored<Self>,
        _: &LookedUp,
    ) -> Result<(), Problem> {
        requirements::follow(tx, desk, stored, fields.required).await
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        if requirements::is_required(desk, stored).await? {
            return Err(Problem::conflict(
                "required",
                format!(
                    "{} is required; somebody who is not the author of a version under way says first that it is not \
                     (sluice model unrequire MODEL {})",
                    stored.name, stored.name
                ),
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores. A name that is there gets its next version.
    #[schemars(length(min = 1, max = 128), example = &"triage")]
    name: String,
    /// A Jinja template over the row's columns: a user's message, or a JSON list of `{"role": …, "content": …}`.
    #[schemars(length(min = 1), example = &"Answer in one word: {{ text }}")]
    template: String,
    /// Further fields of the request, over the evaluation's own.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "temperature": 0.2, "max_tokens": 64 }))]
    sampling: Value,
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"shorter")]
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
    if let Some(sampling) = fields.sampling.as_object() {
        check_sampling("sampling", sampling)?;
    }
    check_text("note", &fields.note)?;
    if fields.template.is_empty() {
        return Err(Problem::field("template", "should not be empty"));
    }
    compile(&fields.template).map_err(|error| Problem::field("template", error.to_string()))?;
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
