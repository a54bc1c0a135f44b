//! Who may do what: one table. A role holds inside its principal's department; an admin's holds in all.

use super::words::words;
use crate::id::DepartmentId;

words! {
    /// What a principal is trusted with.
    pub enum Role ("role") {
        Viewer = "viewer",
        Annotator = "annotator",
        Reviewer = "reviewer",
        Developer = "developer",
        Operator = "operator",
        Approver = "approver",
        Admin = "admin",
    }
}

words! {
    /// What a request wants to do.
    pub enum Verb ("verb") {
        /// See oneself, and what was granted to one by name.
        ViewGranted = "view_granted",
        /// See records, runs, tasks and states of the department.
        View = "view",
        /// Send requests to the department's deployments and to those open to all.
        Infer = "infer",
        /// Make and withdraw one's own keys.
        ManageOwnKeys = "manage_own_keys",
        Annotate = "annotate",
        /// Judge others' annotations.
        Review = "review",
        /// Register and edit models, versions, datasets, trainings, evaluations, prompts; upload.
        EditCatalogue = "edit_catalogue",
        /// Start trainings, evaluations, conversions.
        RunTask = "run_task",
        CancelTask = "cancel_task",
        RequestApproval = "request_approval",
        ApproveVersion = "approve_version",
        OverrideGate = "override_gate",
        /// Say which evaluations a model or a deployment requires; not less than before by the author of a version that is
        /// not approved yet.
        RequireEvaluation = "require_evaluation",
        EditDeployment = "edit_deployment",
        CreateWorkOrder = "create_work_order",
        ApproveWorkOrder = "approve_work_order",
        /// Pause, resume, advance, roll back, stop.
        OperateRelease = "operate_release",
        /// See who used how much.
        ViewUsage = "view_usage",
        ManageQuota = "manage_quota",
        ViewAudit = "view_audit",
        /// Give others access to a dataset or a model that one sees.
        ManageGrants = "manage_grants",
        ManagePeople = "manage_people",
        /// Back up, restore, migrate, collect garbage.
        Administer = "administer",
    }
}

/// The table: for each verb the roles that may. Anything not listed is refused.
const ALLOWED: &[(Verb, &[Role])] = {
    use Role::{Admin, Annotator, Approver, Developer, Operator, Reviewer, Viewer};
    const EVERYONE: &[Role] = &[
        Viewer, Annotator, Reviewer, Developer, Operator, Approver, Admin,
    ];
    /// An annotator does the work that is handed to him and sees that. What else he may see or ask is granted by name.
    const SEEING: &[Role] = &[Viewer, Reviewer, Developer, Operator, Approver, Admin];
    &[
        (Verb::ViewGranted, EVERYONE),
        (Verb::View, SEEING),
        (Verb::Infer, SEEING),
        (Verb::ManageOwnKeys, EVERYONE),
        (Verb::Annotate, &[Annotator, Reviewer, Admin]),
        (Verb::Review, &[Reviewer, Admin]),
        (Verb::EditCatalogue, &[Developer, Admin]),
        (Verb::RunTask, &[Developer, Operator, Admin]),
        (Verb::CancelTask, &[Developer, Operator, Admin]),
        (Verb::RequestApproval, &[Developer, Admin]),
        (Verb::ApproveVersion, &[Approver, Admin]),
        (Verb::OverrideGate, &[Approver, Admin]),
        (
            Verb::RequireEvaluation,
            &[Developer, Operator, Approver, Admin],
        ),
        (Verb::EditDeployment, &[Operator, Admin]),
        (Verb::CreateWorkOrder, &[Developer, Operator, Admin]),
        (Verb::ApproveWorkOrder, &[Approver, Admin]),
        (Verb::OperateRelease, &[Operator, Admin]),
        (Verb::ViewUsage, &[Developer, Operator, Approver, Admin]),
        (Verb::ManageQuota, &[Operator, Admin]),
        (Verb::ViewAudit, &[Operator, Approver, Admin]),
        (Verb::ManageGrants, &[Approver, Admin]),
        (Verb::ManagePeople, &[Admin]),
        (Verb::Administer, &[Admin]),
    ]
};

/// A request that its sender may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("the role {role} may not {verb}; it takes one of: {}", allowed.join(", "))]
    Role {
        role: Role,
        verb: Verb,
        allowed: Vec<&'static str>,
    },
    #[error("it belongs to another department than yours; only an admin acts across departments")]
    Department,
}

impl Role {
    pub fn may(self, verb: Verb) -> bool {
        roles_for(verb).contains(&self)
    }
}

/// The roles that may `verb`.
pub fn roles_for(verb: Verb) -> &'static [Role] {
    ALLOWED
        .iter()
        .find(|(listed, _)| *listed == verb)
        .map_or(&[], |(_, roles)| *roles)
}

/// Whether somebody of `role` in `department` may `verb` on what belongs to `owner`. `owner` is `None`
/// for what belongs to no department, such as a backup.
///
/// # Errors
/// [`Forbidden`], saying which role it takes.
pub fn authorize(
    role: Role,
    department: DepartmentId,
    verb: Verb,
    owner: Option<DepartmentId>,
) -> Result<(), Forbidden> {
    if !role.may(verb) {
        let allowed = roles_for(verb).iter().map(|role| role.word()).collect();
        return Err(Forbidden::Role {
            role,
            verb,
            allowed,
        });
    }
    match owner {
        Some(owner) if owner != department && role != Role::Admin => Err(Forbidden::Department),
        _ => Ok(()),
    }
}

/// The table of `docs/state-machines.md`.
pub(crate) fn document() -> String {
    let heads = Role::ALL
        .iter()
        .map(|role| format!(" {role} |"))
        .collect::<String>();
    let rule = "---|".repeat(Role::ALL.len());
    let rows = Verb::ALL.iter().map(|&verb| {
        let cells = Role::ALL
            .iter()
            .map(|role| if role.may(verb) { " ✓ |" } else { " |" })
            .collect::<String>();
        format!("| `{verb}` |{cells}\n")
    });
    format!("| |{heads}\n|---|{rule}\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests;
