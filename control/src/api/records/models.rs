//! Models, and the page that tells all about one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_text, check_url};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, Summaries, check_owner, filter, in_department, serve};
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
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// Id or name; the caller's own if absent.
    #[serde(default)]
    pub department: Option<String>,
    /// Id or name; the caller if absent.
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub train_framework: String,
    #[serde(default)]
    pub inference_framework: String,
    #[serde(default)]
    pub code_url: Option<String>,
    #[serde(default)]
    pub dashboard_url: Option<String>,
}

filter!(ModelFilter {
    name: String,
    /// Part of the description, in whatever case.
    description: String,
    /// Id or name.
    department: String,
    /// Id or name.
    owner: String,
});

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
        check_text("train_framework", &fields.train_framework)?;
        check_text("inference_framework", &fields.inference_framework)?;
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
