#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::id::{DepartmentId, DeploymentId, Id as _, ModelVersionId, WorkOrderId};
use crate::store::Json;

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

/// v1, then v2 by two settings, then v3, each live for a minute; the latest first.
struct World {
    history: History,
}

impl World {
    fn new() -> Self {
        let deployment = DeploymentId::new();
        let versions = [1, 2, 3].map(|_| ModelVersionId::new());
        let made = [(1, "a"), (2, "a"), (2, "b"), (3, "a")];
        let returns = made
            .iter()
            .zip(0..)
            .map(|((number, settings), minute)| Return {
                revision: LiveRevision {
                    deployment,
                    department: DepartmentId::new(),
                    owner: None,
                    work_order: WorkOrderId::new(),
                    restores: None,
                    version: versions[*number as usize - 1],
                    number: *number,
                    artifact: None,
                    digest: format!("sha256:{number}"),
                    snapshot: Json(json!({ "settings": settings })),
                },
                since: at(minute * 60),
            });
        let mut returns: Vec<_> = returns.collect();
        returns.reverse();
        Self {
            history: History {
                returns,
                taken_back: None,
            },
        }
    }

    fn live(&self, place: usize) -> LiveRevision {
        self.history.returns[place].revision.clone()
    }

    fn aim(&self, live: &LiveRevision, to: Option<&str>) -> Result<Option<Aim>, Unnamed> {
        self.history.aim(live, to, HOUR, at(1_000))
    }

    /// Where it would lead.
    fn label(&self, place: usize) -> String {
        self.history.returns[place].label()
    }
}

fn brings(aim: Result<Option<Aim>, Unnamed>) -> String {
    match aim.unwrap().unwrap() {
        Aim::Bring(to) => to.label(),
        Aim::Already(already) => format!("already: {}", already.because),
    }
}

fn already(aim: Result<Option<Aim>, Unnamed>) -> Option<Already> {
    match aim.unwrap().unwrap() {
        Aim::Already(already) => Some(already),
        Aim::Bring(_) => None,
    }
}

#[test]
fn it_goes_back_one_step_and_no_further_by_itself() {
    let mut world = World::new();
    let live = world.live(0);
    assert_eq!(brings(world.aim(&live, None)), world.label(1));
    // Brought back: asked again, nothing moves, and it says how to go on.
    let mut back = world.live(1);
    back.restores = Some(back.work_order);
    back.work_order = WorkOrderId::new();
    let found = already(world.aim(&back, None)).unwrap();
    assert_eq!(found.answers, world.label(1));
    assert_eq!(found.further, [world.label(2), world.label(3)]);
    assert_eq!(
        brings(world.aim(&back, Some(&world.label(2)))),
        world.label(2)
    );
    // A release was taken back a moment ago, by whomever.
    world.history.taken_back = Some(at(998));
    let found = already(world.aim(&live, None)).unwrap();
    assert!(
        found.because.contains("1970-01-01 00:16:38 UTC"),
        "{found:?}"
    );
    assert_eq!(brings(world.aim(&live, Some("v1"))), world.label(3));
    // Long ago it is another matter.
    world.history.taken_back = Some(at(1_000 - 3_601));
    assert_eq!(brings(world.aim(&live, None)), world.label(1));
    // The first of all has nothing before it, and one that is this moment live has everything.
    assert_eq!(world.aim(&world.live(3), None), Ok(None));
    let mut fresh = world.live(0);
    fresh.work_order = WorkOrderId::new();
    fresh.snapshot = Json(json!({"settings": "new"}));
    assert_eq!(brings(world.aim(&fresh, None)), world.label(0));
}

#[test]
fn what_would_change_nothing_is_passed_over() {
    let mut world = World::new();
    world.history.returns[1].revision.version = world.history.returns[0].revision.version;
    world.history.returns[1].revision.snapshot = world.history.returns[0].revision.snapshot.clone();
    assert_eq!(brings(world.aim(&world.live(0), None)), world.label(2));
}

#[test]
fn a_revision_is_named_by_itself_its_version_or_its_order() {
    let world = World::new();
    let live = world.live(0);
    for (text, place) in [
        (world.label(2), 2),
        ("v2".to_owned(), 1),
        ("2".to_owned(), 1),
        ("helpdesk@v1".to_owned(), 3),
        (world.live(2).work_order.to_string(), 2),
        ("v1-".to_owned(), 3),
    ] {
        assert_eq!(
            brings(world.aim(&live, Some(&text))),
            world.label(place),
            "{text}"
        );
    }
    // What answers already.
    assert!(already(world.aim(&live, Some("v3"))).is_some());
    let refused = world.aim(&live, Some("v9")).unwrap_err();
    assert!(refused.problem.contains("never live here"), "{refused}");
    assert_eq!(refused.known.len(), 4);
    // As it is written, it may be either of two.
    let refused = world.aim(&live, Some("v2-")).unwrap_err();
    assert_eq!(refused.known.len(), 2, "{refused}");
    assert!(refused.to_string().contains(&world.label(2)), "{refused}");
    assert!(world.aim(&live, Some("")).is_err() && world.aim(&live, Some("v")).is_err());
}
