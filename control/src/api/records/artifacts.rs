//! Artifacts, as far as the records go; their bytes are uploaded and read elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk, Items};
use crate::api::caller::Caller;
use crate::api::input::check_name;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, filter, in_department, serve_reads};
use crate::domain::record::{Artifact, ArtifactKind};
use crate::domain::roles::Verb;
use crate::store::{ArtifactFile, Column as _, Listing, Reference, Viewer};

pub(crate) fn serve_all(api: &mut Registry) {
    serve_reads::<Artifact>(api, "List artifacts", "Show an artifact");
    api.route(
        get(
            "/artifacts/{id}/files",
            Verb::View,
            "List the files of an artifact with their digests",
        ),
        files,
    );
    api.route(
        get(
            "/artifacts/{id}/references",
            Verb::View,
            "List the records that need an artifact",
        ),
        references,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactFields {
    pub name: String,
}

filter!(ArtifactFilter {
    /// What they are for.
    kind: ArtifactKind,
    /// The whole name.
    name: String,
    /// `sha256:` and 64 hexadecimal digits.
    digest: String,
});

impl Resource for Artifact {
    type Fields = ArtifactFields;
    type Filter = ArtifactFilter;
    const COLLECTION: &'static str = "/artifacts";
    const ITEM: &'static str = "/artifacts/{id}";
    const NAME: &'static str = "digest";
    const EDIT: Verb = Verb::EditCatalogue;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        // A dataset's content is as secret as the dataset, whatever record names it; but for who brought it.
        let mut values = vec![caller.principal.to_value()];
        values.extend(caller.viewer().values());
        in_department(listing, caller).where_clause(
            format!(
                "owner = ? \
                 OR EXISTS (SELECT 1 FROM dataset_versions s WHERE s.digest = artifacts.digest AND s.dataset IN ({})) \
                 OR NOT EXISTS (SELECT 1 FROM dataset_versions s WHERE s.digest = artifacts.digest)",
                Viewer::DATASETS
            ),
            values,
        )
    }

    async fn select(
        _: &Desk,
        filter: &ArtifactFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        Ok(listing
            .is_if("kind", filter.kind.as_ref())
            .is_if("name", filter.name.as_ref())
            .is_if("digest", filter.digest.as_ref()))
    }

    fn fields(&self) -> ArtifactFields {
        ArtifactFields {
            name: self.name.clone(),
        }
    }

    async fn build(
        _: &Desk,
        fields: &ArtifactFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        let current = current
            .ok_or_else(|| Problem::bad_request("an artifact is made by an upload or an import"))?;
        Ok(Self {
            name: fields.name.clone(),
            ..current.clone()
        })
    }
}

async fn files(call: Call) -> Result<Answer<Items<ArtifactFile>>, Problem> {
    let artifact = call.desk.find::<Artifact>(call.segment("id")).await?;
    let items = call.desk.store.artifact_files(artifact.id).await?;
    Ok(Answer::of(Items {
        items,
        next_cursor: None,
    }))
}

async fn references(call: Call) -> Result<Answer<Items<Reference>>, Problem> {
    let artifact = call.desk.find::<Artifact>(call.segment("id")).await?;
    let items = call.desk.store.artifact_references(artifact.id).await?;
    Ok(Answer::of(Items {
        items,
        next_cursor: None,
    }))
}
