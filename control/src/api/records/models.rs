//! Models, and the page that tells all about one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_text, check_url};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, Summaries, check_owner, filter, in_department, serve};
use crate::domain::frameworks;
use crate::domain::record::{Department, Deployment, Model, Principal};
use crate::domain::roles::Verb;
use crate::store::{Listing, ModelView, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Model>(
        api,
        &Summaries {
            list: "List models",
            show: "Show a model",
            create: "Register a model",
            update: "Change a model",
            delete: "Put a model away, which nothing serves",
        },
    );
    api.route(
        get(
            "/models/{id}/view",
            Verb::View,
            "A model with its versions, and the training, conversion, evaluation and deployment of each",
        ),
        view,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"helpdesk")]
    pub name: String,
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"Triage of IT requests")]
    pub description: String,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    pub department: Option<String>,
    /// Who answers for it, by id or name; the caller if absent.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub owner: Option<String>,
    /// What it is trained with; empty where nobody says.
    #[serde(default)]
    #[schemars(extend("enum" = frameworks::choices(frameworks::TRAIN)), example = &"pytorch")]
    pub train_framework: String,
    /// What computes it when it is served; empty where nobody says.
    #[serde(default)]
    #[schemars(extend("enum" = frameworks::choices(frameworks::INFERENCE)), example = &"onnxruntime")]
    pub inference_framework: String,
    /// Where its code is, as a link for people.
    #[serde(default)]
    #[schemars(length(max = 2048), example = &"https://git.example.com/it/helpdesk")]
    pub code_url: Option<String>,
    /// Where its numbers are shown, as a link for people.
    #[serde(default)]
    #[schemars(length(max = 2048), example = &"https://grafana.example.com/d/helpdesk")]
    pub dashboard_url: Option<String>,
}

filter!(ModelFilter {
    /// The whole name.
    name: String,
    /// Part of the description, in whatever case.
    description: String,
    /// Id or name.
    department: String,
    /// Id or name.
    owner: String,
});

fn check_frameworks(fields: &ModelFields, current: Option<&Model>) -> Result<(), Problem> {
    let before = |of: fn(&Model) -> &String| current.map(|it| of(it).as_str());
    frameworks::check(
        frameworks::TRAIN,
        &fields.train_framework,
        before(|it| &it.train_framework),
    )
    .map_err(|problem| Problem::field("train_framework", problem))?;
    frameworks::check(
        frameworks::INFERENCE,
        &fields.inference_framework,
        before(|it| &it.inference_framework),
    )
    .map_err(|problem| Problem::field("inference_framework", problem))
}

/// The department that a new record belongs to.
pub(super) async fn home(
    desk: &Desk,
    named: Option<&str>,
) -> Result<crate::id::DepartmentId, Problem> {
    let department = desk
        .refer_if::<Department>("department", named)
        .await?
        .unwrap_or(desk.caller.department);
    desk.allow(Some(department))?;
    Ok(department)
}

impl Resource for Model {
    type Fields = ModelFields;
    type Filter = ModelFilter;
    const COLLECTION: &'static str = "/models";
    const ITEM: &'static str = "/models/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::EditCatalogue;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        in_department(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &ModelFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let department = desk
            .refer_if::<Department>("department", filter.department.as_deref())
            .await?;
        let owner = desk
            .refer_if::<Principal>("owner", filter.owner.as_deref())
            .await?;
        let listing = listing
            .is_if("name", filter.name.as_ref())
            .is_if("department", department.as_ref())
            .is_if("owner", owner.as_ref());
        Ok(match &filter.description {
            Some(part) => listing.contains("description", part),
            None => listing,
        })
    }

    fn fields(&self) -> ModelFields {
        ModelFields {
            name: self.name.clone(),
            description: self.description.clone(),
            department: Some(self.department.to_string()),
            owner: self.owner.map(|id| id.to_string()),
            train_framework: self.train_framework.clone(),
            inference_framework: self.inference_framework.clone(),
            code_url: self.code_url.clone(),
            dashboard_url: self.dashboard_url.clone(),
        }
    }

    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        fields: &ModelFields,
    ) -> Result<(), Problem> {
        check_owner(desk, stored.owner, fields.owner.as_deref()).await
    }

    async fn build(
        desk: &Desk,
        fields: &ModelFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        check_text("description", &fields.description)?;
        check_frameworks(fields, current)?;
        check_url("code_url", fields.code_url.as_deref())?;
        check_url("dashboard_url", fields.dashboard_url.as_deref())?;
        let kept = current.and_then(|it| it.owner);
        let owner = desk
            .refer_or_keep::<Principal>("owner", fields.owner.as_deref(), kept)
            .await?;
        let department = match (current, &fields.department) {
            (Some(current), None) => current.department,
            (_, named) => home(desk, named.as_deref()).await?,
        };
        Ok(Self {
            department,
            owner: owner.or_else(|| current.is_none().then_some(desk.caller.principal)),
            name: fields.name.clone(),
            description: fields.description.clone(),
            train_framework: fields.train_framework.clone(),
            inference_framework: fields.inference_framework.clone(),
            code_url: fields.code_url.clone(),
            dashboard_url: fields.dashboard_url.clone(),
        })
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        let serving = Listing::<Deployment>::new()
            .is("model", &stored.id)
            .limit(1);
        if let Some(deployment) = desk.store.list(&serving).await?.items.first() {
            return Err(Problem::conflict(
                "reference",
                format!(
                    "the deployment {} is of this model; put it away first",
                    deployment.endpoint
                ),
            ));
        }
        Ok(())
    }
}

async fn view(call: Call) -> Result<Answer<ModelView>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let viewer = call.desk.caller.viewer();
    let view = call.desk.store.model_view(model.id, Some(viewer)).await?;
    Ok(Answer::of(view))
}
