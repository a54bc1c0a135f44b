//! What ids are called: for lists that people read, where a record names others by their ids.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::Resource;
use crate::domain::record::{
    ApiKey, Artifact, Dataset, DatasetVersion, Department, Deployment, Evaluation, Model,
    ModelVersion, Principal, Training,
};
use crate::domain::roles::Verb;
use crate::store::{Listing, Record, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        get(
            "/names",
            Verb::View,
            "What records are called, by their ids, as far as the caller may know of them",
        ),
        names,
    );
}

/// Ids at once: all fit in one page of each kind.
const MOST: usize = 200;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamesQuery {
    /// Ids of any kind, between commas, 200 at most.
    #[serde(default)]
    ids: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Names {
    /// By id: a name, an endpoint, or of a version `name@v2`. Without those that have none, or that the caller may not
    /// know of. Records that were put away still have theirs.
    names: BTreeMap<String, String>,
}

async fn names(call: Call<NamesQuery>) -> Result<Answer<Names>, Problem> {
    let ids: Vec<&str> = call.query.ids.split(',').map(str::trim).collect();
    if ids.len() > MOST {
        let right = format!("should be {MOST} at most; ask several times");
        return Err(Problem::field("ids", right));
    }
    let mut asked = Asked {
        desk: &call.desk,
        ids: &ids,
        names: BTreeMap::new(),
    };
    asked.of::<Department>(|it| it.name.clone()).await?;
    asked.of::<Principal>(|it| it.name.clone()).await?;
    asked.of::<Model>(|it| it.name.clone()).await?;
    asked.of::<Dataset>(|it| it.name.clone()).await?;
    asked.of::<Training>(|it| it.name.clone()).await?;
    asked.of::<Evaluation>(|it| it.name.clone()).await?;
    asked.of::<Deployment>(|it| it.endpoint.clone()).await?;
    asked.of::<Artifact>(|it| it.name.clone()).await?;
    asked.keys().await?;
    asked.versions().await?;
    Ok(Answer::of(Names { names: asked.names }))
}

struct Asked<'a> {
    desk: &'a Desk,
    ids: &'a [&'a str],
    names: BTreeMap<String, String>,
}

impl Asked<'_> {
    /// Those of the ids that are of one kind.
    fn ids<R: Record>(&self) -> Vec<R::Id> {
        let ids = self.ids.iter().filter_map(|text| text.parse().ok());
        ids.collect()
    }

    async fn found<R: Record>(
        &self,
        listing: Listing<R>,
        ids: &[R::Id],
    ) -> Result<Vec<Stored<R>>, Problem> {
        let listing = listing.is_one_of("id", ids).with_deleted();
        let listing = listing.limit(MOST as u32);
        Ok(self.desk.store.list(&listing).await?.items)
    }

    async fn of<R: Resource>(&mut self, name: impl Fn(&R) -> String) -> Result<(), Problem> {
        let ids = self.ids::<R>();
        if ids.is_empty() || self.desk.caller.check(R::VIEW, false).is_err() {
            return Ok(());
        }
        let listing = R::restrict(Listing::new(), &self.desk.caller);
        for stored in self.found(listing, &ids).await? {
            self.names
                .insert(stored.id.to_string(), name(&stored.record));
        }
        Ok(())
    }

    /// One's own, or with the right to manage people anyone's.
    async fn keys(&mut self) -> Result<(), Problem> {
        let ids = self.ids::<ApiKey>();
        if ids.is_empty() {
            return Ok(());
        }
        let caller = &self.desk.caller;
        let listing = match caller.role.may(Verb::ManagePeople) {
            true => Listing::new(),
            false => Listing::new().is("principal", &caller.principal),
        };
        for key in self.found::<ApiKey>(listing, &ids).await? {
            self.names.insert(key.id.to_string(), key.record.name);
        }
        Ok(())
    }

    /// A version is called after what it is one of.
    async fn versions(&mut self) -> Result<(), Problem> {
        let ids = self.ids::<ModelVersion>();
        if !ids.is_empty() {
            let versions = self.found::<ModelVersion>(Listing::new(), &ids).await?;
            let owners: Vec<_> = versions.iter().map(|it| it.model).collect();
            let listing = Model::restrict(Listing::new(), &self.desk.caller);
            let models = self.found(listing, &owners).await?;
            for version in &versions {
                let model = models.iter().find(|it| it.id == version.model);
                let name = model.map(|it| format!("{}@v{}", it.name, version.number));
                self.names
                    .extend(name.map(|name| (version.id.to_string(), name)));
            }
        }
        let ids = self.ids::<DatasetVersion>();
        if !ids.is_empty() {
            let versions = self.found::<DatasetVersion>(Listing::new(), &ids).await?;
            let owners: Vec<_> = versions.iter().map(|it| it.dataset).collect();
            let listing = Dataset::restrict(Listing::new(), &self.desk.caller);
            let datasets = self.found(listing, &owners).await?;
            for version in &versions {
                let dataset = datasets.iter().find(|it| it.id == version.dataset);
                let name = dataset.map(|it| format!("{}@v{}", it.name, version.number));
                self.names
                    .extend(name.map(|name| (version.id.to_string(), name)));
            }
        }
        Ok(())
    }
}
