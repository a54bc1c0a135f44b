#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use http::Request;
use sluice_gateway::Principal;
use sluice_gateway::context::Owner;

use super::*;
use crate::control::ControlSettings;
use crate::id::{ApiKeyId, Id as _, PrincipalId};
use crate::store::KeyLimits;

struct Published {
    snapshot: Snapshot,
    deployment: DeploymentId,
}

impl Published {
    /// One deployment, and one key of `role` with these scopes.
    fn new(role: Option<Role>, scopes: &[Scope], clearance: Secrecy, is_own: bool) -> Self {
        let (department, deployment) = (DepartmentId::new(), DeploymentId::new());
        let key = PublishedKey {
            key: ApiKeyId::new(),
            principal: PrincipalId::new(),
            department: match is_own {
                true => department,
                false => DepartmentId::new(),
            },
            name: "ada".into(),
            hash: String::new(),
            inference: true,
            operator: true,
            expires_at: None,
            role,
            scopes: scopes.to_vec(),
            clearance,
            department_name: Some("it".into()),
            models: None,
            limits: KeyLimits::default(),
            line: None,
            made_by: None,
        };
        let audience = DeploymentAudience {
            deployment,
            department,
            department_name: "it".into(),
            clearance: Secrecy::Confidential,
            open_to_all: true,
            adopted: false,
            people: Vec::new(),
            file_keys: Vec::new(),
            departments: Vec::new(),
        };
        let snapshot = Snapshot {
            keys: vec![key],
            audiences: vec![audience],
            ..Snapshot::default()
        };
        Self {
            snapshot,
            deployment,
        }
    }

    /// The status of the refusal; `None` if it may.
    fn refused(&self) -> Option<u16> {
        let key = &self.snapshot.keys[0];
        let mut context = RequestContext::new("r", "/v1/chat/completions");
        context.principal = Some(Arc::new(Principal {
            key_id: "0".into(),
            name: "ada".into(),
            priority: sluice_engine::request::Priority::Normal,
            models: None,
            role: None,
            owner: Some(Arc::new(Owner {
                key: key.key.to_string().into(),
                ..Owner::default()
            })),
            rights: sluice_gateway::access::Rights::default(),
        }));
        let request = Request::builder().extension(context).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let control = Control::new(ControlSettings::default());
        let not_there = || Problem::not_found("deployment", "d");
        let asked = caller(&control, &self.snapshot, &parts, self.deployment, not_there);
        asked.err().map(|problem| problem.status().as_u16())
    }
}

#[test]
fn taking_back_without_the_database_takes_what_it_takes_with_it() {
    use Secrecy::{Confidential, Internal};
    let write = &[Scope::Write][..];
    for (role, scopes, clearance, is_own, status) in [
        (Some(Role::Operator), write, Confidential, true, None),
        (Some(Role::Admin), write, Confidential, false, None),
        (
            Some(Role::Operator),
            &[Scope::Read, Scope::Inference],
            Confidential,
            true,
            Some(403),
        ),
        (Some(Role::Operator), write, Confidential, false, Some(404)),
        (Some(Role::Operator), write, Internal, true, Some(403)),
        (Some(Role::Admin), write, Internal, true, Some(403)),
        (Some(Role::Developer), write, Confidential, true, Some(403)),
        // What an earlier binary published does not say.
        (None, write, Confidential, true, Some(403)),
    ] {
        let published = Published::new(role, scopes, clearance, is_own);
        assert_eq!(
            published.refused(),
            status,
            "{role:?} {scopes:?} {clearance} {is_own}"
        );
    }
}

#[test]
fn a_key_that_was_not_published_takes_nothing_back() {
    let mut published =
        Published::new(Some(Role::Operator), &[Scope::Write], Secrecy::Secret, true);
    let known = published.snapshot.keys[0].clone();
    assert_eq!(published.refused(), None);
    published.snapshot.keys[0].key = ApiKeyId::new();
    assert_eq!(published.refused(), None, "it asks by its own id");
    published.snapshot.keys = vec![PublishedKey {
        scopes: Vec::new(),
        ..known
    }];
    assert_eq!(published.refused(), Some(403));
}

#[test]
fn a_deployment_that_was_not_told_of_is_for_those_who_are_cleared_for_all() {
    for (role, clearance, status) in [
        (Role::Operator, Secrecy::Secret, Some(404)),
        (Role::Admin, Secrecy::Confidential, Some(403)),
        (Role::Admin, Secrecy::Secret, None),
    ] {
        let mut published = Published::new(Some(role), &[Scope::Write], clearance, true);
        published.snapshot.audiences.clear();
        assert_eq!(published.refused(), status, "{role} {clearance}");
    }
}
