//! A release whose outcomes are told rather than measured.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sluice_gateway::endpoint::{Kind, Protocol};
use sluice_gateway::release::{Class, ReleaseOutcome, ReleaseSink as _};
use sluice_gateway::router::Entry;
use sluice_gateway::router::split::{Assignment, Side, Weight};

use super::super::*;
use crate::deploy::tests::rig::{People, Product, Rig, deployment, people, product, version};
use crate::domain::Verdict;
use crate::domain::record::{Deployment, ReleaseDecision, WorkOrder};
use crate::id::{ModelVersionId, WorkOrderId};
use crate::release::planner::Command;
use crate::store::{Listing, Store, Stored};

/// A deployment whose versions other servers compute, which nobody asks: outcomes are told.
pub(super) struct Stage {
    pub(super) rig: Rig,
    pub(super) people: People,
    pub(super) product: Product,
    pub(super) at: Stored<Deployment>,
    pub(super) v1: ModelVersionId,
    pub(super) v2: ModelVersionId,
}

fn elsewhere(port: u16) -> Value {
    json!({"upstream": format!("http://127.0.0.1:{port}/v1")})
}

fn strategy(steps: &Value) -> Value {
    json!({
        "steps": steps,
        "objectives": [{"event": "error", "compare": "stable"}, {"event": "error", "max_ratio": 0.2}],
        "settle": "1ms",
    })
}

impl Stage {
    /// Version 1 is live.
    pub(super) async fn new(store: &Store) -> Self {
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere(9)).await;
        let v1 = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let v2 = version(store, &people, &product, "sha256:bb", Verdict::Passed).await;
        rig.deploy(&people, &at, v1).await;
        Self {
            rig,
            people,
            product,
            at,
            v1,
            v2,
        }
    }

    /// A release of version 2, prepared.
    pub(super) async fn start(&self, steps: Value) -> WorkOrderId {
        let new = NewRelease {
            deployment: self.at.id,
            candidate: self.v2,
            upstream: Vec::new(),
            strategy: Some(strategy(&steps)),
            reason: "a test".into(),
            approve: false,
        };
        let deployments = &self.rig.deployments;
        let (order, _) = Releases::start(deployments, &self.people.developer, new)
            .await
            .unwrap();
        self.rig.approve(&self.people, order.id).await;
        self.rig.driver.round().await.unwrap();
        order.id
    }

    pub(super) async fn order(&self, id: WorkOrderId) -> Stored<WorkOrder> {
        self.rig.store.get(id).await.unwrap()
    }

    pub(super) async fn decisions(&self, id: WorkOrderId) -> Vec<Stored<ReleaseDecision>> {
        let listing = Listing::<ReleaseDecision>::new()
            .is("work_order", &id)
            .oldest_first();
        self.rig.store.list(&listing).await.unwrap().items
    }

    pub(super) async fn command(
        &self,
        id: WorkOrderId,
        asked: Command,
    ) -> Result<Stored<WorkOrder>, ReleaseError> {
        let operator = &self.people.operator;
        self.rig
            .releases
            .command(operator, id, asked, "a test")
            .await
    }

    pub(super) async fn live(&self) -> Option<ModelVersionId> {
        let at = self.rig.store.get::<Deployment>(self.at.id).await.unwrap();
        at.live_version
    }

    /// The same records with another process's memory, and another candidate.
    pub(super) async fn again(&self, candidate: ModelVersionId) -> Self {
        let People {
            department,
            developer,
            approver,
            operator,
        } = &self.people;
        let Product {
            model,
            evaluation,
            test_set,
        } = self.product;
        Self {
            rig: Rig::new(&self.rig.store).await,
            people: People {
                department: *department,
                developer: developer.clone(),
                approver: approver.clone(),
                operator: operator.clone(),
            },
            product: Product {
                model,
                evaluation,
                test_set,
            },
            at: self.at.clone(),
            v1: self.v1,
            v2: candidate,
        }
    }
}

/// What the route table says of the only deployment: the candidate's share in percent, or the revision that is alone.
pub(super) fn traffic(rig: &Rig) -> Result<f64, String> {
    match rig.gateway.routes().entry("helpdesk").unwrap() {
        Entry::Released(release) => Ok(release.split().weight().share() * 100.0),
        Entry::Settled(alone) => Err(alone.revision.split('-').next().unwrap().to_owned()),
    }
}

pub(super) fn alone(version: &str) -> Result<f64, String> {
    Err(version.to_owned())
}

/// Tells of `count` requests to each side, each of a user of its own; a share of the candidate's have failed.
pub(super) fn tell(rig: &Rig, release: WorkOrderId, count: u64, candidate_fails: f64) {
    for number in 0..count {
        for side in [Side::Stable, Side::Candidate] {
            let fails = side == Side::Candidate && (number as f64) < count as f64 * candidate_fails;
            let unit: u64 = rand::random();
            rig.publisher.watches().outcome(ReleaseOutcome {
                release: release.to_string().into(),
                deployment: "helpdesk".into(),
                revision: "v".into(),
                side,
                assignment: Assignment::Random,
                weight: Weight::percent(50.0).unwrap(),
                unit,
                key: 0,
                ended: SystemTime::now(),
                class: if fails {
                    Class::Failed
                } else {
                    Class::Answered
                },
                status: if fails { 500 } else { 200 },
                retried: false,
                stable_answered: false,
                kind: Kind::Model(Protocol::Chat),
                ttft: Some(Duration::from_millis(10)),
                tpot: None,
                total: Duration::from_millis(20),
                prompt_tokens: 5,
                output_tokens: 5,
                finish: None,
                empty: false,
                refused: false,
                violation: false,
            });
        }
    }
}

pub(super) fn actions(decisions: &[Stored<ReleaseDecision>]) -> Vec<String> {
    let word = |it: &Stored<ReleaseDecision>| match &it.action {
        Some(action) => action.0["action"].as_str().unwrap().to_owned(),
        None => it.kind.to_string(),
    };
    decisions.iter().map(word).collect()
}

/// As after the process that held them was killed.
pub(super) async fn release_leases(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    sqlx::query("UPDATE leases SET expires_at = 0")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}
