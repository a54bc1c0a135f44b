//! Departments, principals and grants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::granting;
use crate::api::call::{Answer, Call, Desk};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, Summaries, filter, in_department, serve};
use crate::domain::record::{Access, Department, Grant, Model, Principal};
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::store::{Listing, Stored, Viewer};

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Department>(
        api,
        &Summaries {
            list: "List departments",
            show: "Show a department",
            create: "Make a department",
            update: "Change a department",
            delete: "Put a department away",
        },
    );
    serve::<Principal>(
        api,
        &Summaries {
            list: "List people and programs",
            show: "Show a principal",
            create: "Make a principal",
            update: "Change a principal: its role, clearance, department, whether its keys count",
            delete: "Put a principal away; its keys are refused from then on",
        },
    );
    serve::<Grant>(
        api,
        &Summaries {
            list: "List grants",
            show: "Show a grant",
            create: "Give a person or a department access to a dataset, a model or a deployment",
            update: "Change what a grant allows",
            delete: "Take a grant back",
        },
    );
    api.route(
        get("/me", Verb::ViewGranted, "Who asks, and with which rights"),
        me,
    );
}

/// Who asks.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Me {
    principal: Stored<Principal>,
    /// The role in force: the keys file may give another than the record.
    role: Role,
    may: Vec<Verb>,
}

async fn me(call: Call) -> Result<Answer<Me>, Problem> {
    let caller = &call.desk.caller;
    let principal = call.desk.store.get::<Principal>(caller.principal).await?;
    let may = Verb::ALL
        .iter()
        .copied()
        .filter(|verb| caller.role.may(*verb))
        .collect();
    Ok(Answer::of(Me {
        principal,
        role: caller.role,
        may,
    }))
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DepartmentFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"it")]
    pub name: String,
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"Information technology")]
    pub description: String,
}

filter!(DepartmentFilter {
    /// The whole name.
    name: String,
});

impl Resource for Department {
    type Fields = DepartmentFields;
    type Filter = DepartmentFilter;
    const COLLECTION: &'static str = "/departments";
    const ITEM: &'static str = "/departments/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::ManagePeople;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        listing.is_if("id", caller.scope().as_ref())
    }

    async fn select(
        _: &Desk,
        filter: &DepartmentFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        Ok(listing.is_if("name", filter.name.as_ref()))
    }

    fn fields(&self) -> DepartmentFields {
        DepartmentFields {
            name: self.name.clone(),
            description: self.description.clone(),
        }
    }

    async fn build(_: &Desk, fields: &DepartmentFields, _: Option<&Self>) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        check_text("description", &fields.description)?;
        Ok(Self {
            name: fields.name.clone(),
            description: fields.description.clone(),
        })
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        let people = Listing::<Principal>::new()
            .is("department", &stored.id)
            .limit(1);
        let models = Listing::<Model>::new()
            .is("department", &stored.id)
            .limit(1);
        let inhabited = !desk.store.list(&people).await?.items.is_empty()
            || !desk.store.list(&models).await?.items.is_empty();
        if inhabited {
            return Err(Problem::conflict(
                "reference",
                "the department still has people or models; move them first",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrincipalFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"ada")]
    pub name: String,
    /// Where it belongs, by id or name; the caller's own if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    pub department: Option<String>,
    /// For people to read; nothing is sent there.
    #[serde(default)]
    #[schemars(length(max = 320), example = &"ada@example.com")]
    pub email: Option<String>,
    /// What it may do in its department.
    #[schemars(example = &"developer")]
    pub role: Role,
    /// The most secret data it may see, given a grant.
    #[serde(default = "internal")]
    #[schemars(example = &"confidential")]
    pub clearance: Secrecy,
    /// Its keys are refused.
    #[serde(default)]
    #[schemars(example = true)]
    pub disabled: bool,
}

fn internal() -> Secrecy {
    Secrecy::Internal
}

filter!(PrincipalFilter {
    /// The whole name.
    name: String,
    /// Id or name.
    department: String,
    /// Those with this role.
    role: Role,
});

impl Resource for Principal {
    type Fields = PrincipalFields;
    type Filter = PrincipalFilter;
    const COLLECTION: &'static str = "/principals";
    const ITEM: &'static str = "/principals/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::ManagePeople;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        in_department(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &PrincipalFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let department = desk
            .refer_if::<Department>("department", filter.department.as_deref())
            .await?;
        Ok(listing
            .is_if("name", filter.name.as_ref())
            .is_if("department", department.as_ref())
            .is_if("role", filter.role.as_ref()))
    }

    fn fields(&self) -> PrincipalFields {
        PrincipalFields {
            name: self.name.clone(),
            department: Some(self.department.to_string()),
            email: self.email.clone(),
            role: self.role,
            clearance: self.clearance,
            disabled: self.disabled,
        }
    }

    async fn build(
        desk: &Desk,
        fields: &PrincipalFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        desk.caller.cleared("clearance", fields.clearance)?;
        if let Some(current) = current {
            desk.caller.cleared("principal", current.clearance)?;
        }
        if let Some(email) = &fields.email
            && (email.len() > 320 || !email.contains('@'))
        {
            return Err(Problem::field(
                "email",
                "should be an address such as a@example.com",
            ));
        }
        let department = desk
            .refer_if::<Department>("department", fields.department.as_deref())
            .await?
            .unwrap_or(desk.caller.department);
        if let Some(current) = current.filter(|it| it.file_key.is_some()) {
            let said_by_the_file = current.role == fields.role
                && current.clearance == fields.clearance
                && current.department == department;
            if !said_by_the_file {
                return Err(Problem::field(
                    "role",
                    "role, clearance and department of a key of the keys file are changed there",
                ));
            }
        }
        Ok(Self {
            file_key: current.and_then(|it| it.file_key.clone()),
            department,
            name: fields.name.clone(),
            email: fields.email.clone(),
            role: fields.role,
            clearance: fields.clearance,
            disabled: fields.disabled,
        })
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        desk.caller.cleared("principal", stored.clearance)?;
        if stored.id == desk.caller.principal {
            return Err(Problem::conflict(
                "reference",
                "you cannot put yourself away",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantFields {
    /// A dataset's id or name; exactly one of dataset, model and deployment.
    #[serde(default)]
    #[schemars(example = &"tickets")]
    pub dataset: Option<String>,
    /// A model's id or name; exactly one of dataset, model and deployment.
    #[serde(default)]
    #[schemars(example = &"helpdesk")]
    pub model: Option<String>,
    /// A deployment's id or endpoint, with the access `use`; exactly one of dataset, model and deployment.
    #[serde(default)]
    #[schemars(example = &"helpdesk")]
    pub deployment: Option<String>,
    /// The person who gets it, of whatever department, by id or name; exactly one of principal and department.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub principal: Option<String>,
    /// The department that gets it, by id or name; exactly one of principal and department.
    #[serde(default)]
    #[schemars(example = &"sales")]
    pub department: Option<String>,
    /// What it allows; the only field that changes later.
    #[schemars(example = &"use")]
    pub access: Access,
}

filter!(GrantFilter {
    /// The id of a dataset, a model or a deployment.
    object: String,
    /// Id or name.
    principal: String,
});

impl Resource for Grant {
    type Fields = GrantFields;
    type Filter = GrantFilter;
    const COLLECTION: &'static str = "/grants";
    const ITEM: &'static str = "/grants/{id}";
    const NAME: &'static str = "id";
    /// Whether it may be given is asked of the object: see `granting`.
    const EDIT: Verb = Verb::View;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        let listing = listing.where_clause(
            format!(
                "object_kind <> 'dataset' OR object_id IN ({})",
                Viewer::DATASETS
            ),
            caller.viewer().values(),
        );
        granting::seen_by(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &GrantFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let principal = desk
            .refer_if::<Principal>("principal", filter.principal.as_deref())
            .await?;
        Ok(listing
            .is_if("object_id", filter.object.as_ref())
            .is_if("principal", principal.as_ref()))
    }

    fn fields(&self) -> GrantFields {
        let object = |kind: &str| (self.object_kind == kind).then(|| self.object_id.clone());
        GrantFields {
            dataset: object("dataset"),
            model: object("model"),
            deployment: object("deployment"),
            principal: self.principal.map(|id| id.to_string()),
            department: self.department.map(|id| id.to_string()),
            access: self.access,
        }
    }

    async fn build(
        desk: &Desk,
        fields: &GrantFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        if let Some(current) = current {
            granting::may_give(desk, &current.object_kind, &current.object_id).await?;
            granting::check_access(&current.object_kind, fields.access)?;
            let mut same = current.fields();
            same.access = fields.access;
            if serde_json::to_value(&same).ok() != serde_json::to_value(fields).ok() {
                return Err(Problem::field(
                    "access",
                    "is all that changes in a grant; take it back and give another",
                ));
            }
            return Ok(Self {
                access: fields.access,
                ..current.clone()
            });
        }
        let (object_kind, object_id) = granting::object(desk, fields).await?;
        granting::may_give(desk, object_kind, &object_id).await?;
        granting::check_access(object_kind, fields.access)?;
        if fields.principal.is_some() == fields.department.is_some() {
            return Err(Problem::field(
                "principal",
                "name either a principal or a department",
            ));
        }
        Ok(Self {
            object_kind: object_kind.to_owned(),
            object_id,
            principal: granting::to::<Principal>(
                desk,
                object_kind,
                "principal",
                fields.principal.as_deref(),
            )
            .await?,
            department: granting::to::<Department>(
                desk,
                object_kind,
                "department",
                fields.department.as_deref(),
            )
            .await?,
            access: fields.access,
        })
    }

    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        _: &GrantFields,
    ) -> Result<(), Problem> {
        granting::may_give(desk, &stored.object_kind, &stored.object_id).await
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        granting::may_give(desk, &stored.object_kind, &stored.object_id).await
    }
}
