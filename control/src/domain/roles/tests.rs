#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::id::Id as _;

/// The table once more, as rows of ✓ and ·: whoever changes a right changes it in two places, on purpose.
const EXPECTED: &str = "
                   viewer annotator reviewer developer operator approver admin
view_granted          ✓ ✓ ✓ ✓ ✓ ✓ ✓
view                  ✓ · ✓ ✓ ✓ ✓ ✓
infer                 ✓ · ✓ ✓ ✓ ✓ ✓
manage_own_keys       ✓ ✓ ✓ ✓ ✓ ✓ ✓
annotate              · ✓ ✓ · · · ✓
review                · · ✓ · · · ✓
edit_catalogue        · · · ✓ · · ✓
run_task              · · · ✓ ✓ · ✓
cancel_task           · · · ✓ ✓ · ✓
request_approval      · · · ✓ · · ✓
approve_version       · · · · · ✓ ✓
override_gate         · · · · · ✓ ✓
require_evaluation    · · · ✓ ✓ ✓ ✓
edit_deployment       · · · · ✓ · ✓
create_work_order     · · · ✓ ✓ · ✓
approve_work_order    · · · · · ✓ ✓
operate_release       · · · · ✓ · ✓
view_usage            · · · ✓ ✓ ✓ ✓
manage_quota          · · · · ✓ · ✓
view_audit            · · · · ✓ ✓ ✓
manage_grants         · · · · · ✓ ✓
manage_people         · · · · · · ✓
administer            · · · · · · ✓
";

#[test]
fn each_role_is_tried_against_each_verb() {
    let mut tried = 0;
    for line in EXPECTED.trim().lines().skip(1) {
        let mut cells = line.split_whitespace();
        let verb: Verb = cells.next().unwrap().parse().unwrap();
        for (&role, cell) in Role::ALL.iter().zip(cells) {
            assert_eq!(role.may(verb), cell == "✓", "{role} × {verb}");
            tried += 1;
        }
    }
    assert_eq!(tried, Role::ALL.len() * Verb::ALL.len());
}

#[test]
fn a_role_ends_at_the_department_except_an_admins() {
    let (own, other) = (DepartmentId::new(), DepartmentId::new());
    for &role in Role::ALL {
        let verb = Verb::ManageOwnKeys;
        assert_eq!(authorize(role, own, verb, Some(own)), Ok(()));
        let across = authorize(role, own, verb, Some(other));
        assert_eq!(across.is_ok(), role == Role::Admin, "{role}");
    }
}

#[test]
fn a_refusal_says_which_role_it_takes() {
    let own = DepartmentId::new();
    let error = authorize(Role::Viewer, own, Verb::ApproveVersion, Some(own)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the role viewer may not approve_version; it takes one of: approver, admin"
    );
}
