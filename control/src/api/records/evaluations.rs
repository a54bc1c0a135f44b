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
    Access, Evaluation, EvaluationMethod, Model, Principal, PromptVersion,
};
use crate::domain::roles::Verb;
use crate::evaluation::run::{InvalidPlan, Measures, RunSettings, compile, read_policy};
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
    /// How rows are asked and what is measured: `{"measure": [{"kind": "exact_match"}]}`.
    #[serde(default = "object")]
    pub metrics: Value,
    /// What has to be met: `{"rules": [{"metric": "exact_match/none", "min": 0.9}]}`.
    #[serde(default = "object")]
    pub thresholds: Value,
    /// How the work is done: `{"concurrency": 4}`.
    #[serde(default = "object")]
    pub settings: Value,
    /// Whether every version of the model has to pass it. A new one that tasks can do is required unless this says
    /// `false`; absent in a change, it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// What a run would refuse is refused at once. Metrics or thresholds that are still empty are not decided yet.
fn check_measures(metrics: &Value, thresholds: &Value, settings: &Value) -> Result<(), Problem> {
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    RunSettings::read(settings)?;
    if is_empty(metrics) {
        return match is_empty(thresholds) {
            true => Ok(()),
            false => Err(Problem::field(
                "metrics",
                "is empty, so there is nothing that thresholds could hold for",
            )),
        };
    }
    let measures = Measures::read(metrics)?;
    if !is_empty(thresholds) {
        read_policy(thresholds, &measures)?;
    }
    Ok(())
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
        if fields.method == EvaluationMethod::Automatic {
            check_measures(&fields.metrics, &fields.thresholds, &fields.settings)?;
        }
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
    #[schemars(length(min = 1, max = 128))]
    name: String,
    /// A Jinja template over the row's columns: a user's message, or a JSON list of `{"role": …, "content": …}`.
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
