//! Running an evaluation: a test set asked of a version, through the gateway's own data path, and what came of it.
//!
//! A run is a row and a task. [`order`] makes both and refuses what cannot work; [`Evaluate`] does the work:
//!
//! 1. The version is found where it is live, or loaded on trial beside it ([`target`]); requests are in-house ones, which
//!    wait behind those of clients and are nobody's use.
//! 2. The live version's numbers: those of its newest run of the same policy, test set and prompts, or a run of its own.
//! 3. Every row is asked by every prompt version ([`collect`]); each answer is stored with its input, times, tokens and
//!    scores. A later attempt asks only what has no sample.
//! 4. The stored samples become numbers with intervals, and the numbers a verdict ([`report`]), which ends the run and
//!    moves the version to `eval_passed` or `eval_failed`, in one transaction ([`states`]).
//!
//! It needs the gateway that serves, and so runs in the serving process.

mod ask;
mod asker;
mod collect;
mod comparison;
mod corpus;
mod judge;
mod order;
mod plan;
mod reach;
mod report;
mod rows;
mod session;
mod states;
mod target;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_gateway::Gateway;

use self::asker::Asker;
use self::collect::{Progress, Work};
use self::judge::Judge;
use self::plan::AskKind;
use self::report::Scored;
use self::session::{Session, answers, prompts};
use self::target::{Models, Target};
use crate::artifacts::Artifacts;
use crate::domain::Verdict;
use crate::domain::record::{DatasetVersion, EvaluationRun, Model, ModelVersion};
use crate::domain::run::RunStatus;
use crate::id::{EvaluationRunId, TaskId};
use crate::publish::Publisher;
use crate::store::{Listing, MAX_LIMIT, Store, Stored};
use crate::tasks::{Queue, Task, TaskContext, TaskFailure};

pub use comparison::{Compared, Difference, Half, Part, RowDifference, compare};
pub use order::{Baseline, NewRun, OrderError, order, prompt_named};
pub use plan::{
    InvalidPlan, JUDGE, JUDGE_WINS, Measures, Plan, Purpose, RunSettings, asked_as, check_sampling,
    read_policy,
};
pub use reach::{check_pass, check_reach};
pub use rows::RowLimits;
pub use session::compile;
pub use states::{settle, withdraw};

/// The task kind `evaluate`. Params: `{"run": "evr_…"}`.
#[derive(Debug, Clone)]
pub struct Evaluate {
    models: Models,
    artifacts: Artifacts,
    limits: RowLimits,
}

impl Evaluate {
    /// `gateway` and `publisher` are those that serve; test sets come from `artifacts`.
    pub fn new(
        gateway: Arc<Gateway>,
        publisher: Arc<Publisher>,
        artifacts: Artifacts,
        limits: RowLimits,
    ) -> Self {
        Self {
            models: Models { gateway, publisher },
            artifacts,
            limits,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    pub run: EvaluationRunId,
}

/// What the task says; all of it is in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateOutput {
    pub run: EvaluationRunId,
    pub verdict: Option<Verdict>,
    pub scores: Value,
}

impl Task for Evaluate {
    const NAME: &'static str = "evaluate";
    type Params = EvaluateParams;
    type Output = EvaluateOutput;

    async fn run(
        &self,
        params: EvaluateParams,
        context: &TaskContext,
    ) -> Result<EvaluateOutput, TaskFailure> {
        let store = context.queue().store();
        let run = store.get::<EvaluationRun>(params.run).await?;
        let run = match run.status {
            // By an attempt that did not live to say so.
            RunStatus::Succeeded => run,
            _ => {
                self.evaluate(store, context, states::begin(store, run.id).await?)
                    .await?
            }
        };
        Ok(EvaluateOutput {
            run: run.id,
            verdict: run.verdict,
            scores: run.scores.0.clone(),
        })
    }

    async fn settle(&self, queue: &Queue) -> Result<(), TaskFailure> {
        settle(queue.store()).await?;
        Ok(())
    }
}

fn bad_plan(error: impl std::fmt::Display) -> TaskFailure {
    TaskFailure::lasting("bad_plan", error.to_string())
}

impl Evaluate {
    async fn evaluate(
        &self,
        store: &Store,
        context: &TaskContext,
        run: Stored<EvaluationRun>,
    ) -> Result<Stored<EvaluationRun>, TaskFailure> {
        let version = store.get::<ModelVersion>(run.model_version).await?;
        let plan: Plan = serde_json::from_value(run.plan.0.clone()).map_err(bad_plan)?;
        let session = self.session(store, context, &run, &plan, &version).await?;
        let live = self.baseline(&session, &run, &plan).await?;
        let answers = live.as_ref().map(|(_, samples)| answers(samples));
        {
            let target = self.target(&session, &version).await?;
            let collecting = session.collect(
                run.id,
                &version,
                &target,
                session.judge.as_ref(),
                answers.as_ref(),
            );
            target.while_it_lives(collecting).await?;
        }
        context.progress(0.98, "computing the report");
        let samples = session.samples(run.id).await?;
        let live_run = live.as_ref().map(|(run, _)| (run.id, run.model_version));
        let live_samples = live.map(|(_, samples)| samples);
        let outcome = session
            .conclude(samples, live_samples, live_run, Purpose::Verdict)
            .await?;
        let ended = states::finish(store, run.id, outcome).await?;
        if let Some(verdict) = ended.verdict {
            context.log(&format!("verdict: {verdict}"));
        }
        Ok(ended)
    }

    async fn session<'a>(
        &self,
        store: &'a Store,
        context: &'a TaskContext,
        run: &EvaluationRun,
        plan: &Plan,
        version: &ModelVersion,
    ) -> Result<Session<'a>, TaskFailure> {
        let (measures, policy, settings) = plan.check().map_err(bad_plan)?;
        let test_set = store.get::<DatasetVersion>(run.test_set).await?;
        let rows = rows::read(&self.artifacts, &test_set, &measures.ask, self.limits).await?;
        let corpus = match measures.ask.kind {
            AskKind::Retrieve => {
                rows::corpus(&self.artifacts, &test_set, &measures.ask, self.limits).await?
            }
            _ => Vec::new(),
        };
        let prompts = prompts(store, plan, &measures).await?;
        let patience = Duration::from_secs(settings.timeout_s.into());
        let author = match run.author {
            Some(author) => self.models.rights(store, author).await?,
            None => None,
        };
        let judge = match &measures.judge {
            Some(wanted) => Some(Judge {
                asker: Asker {
                    model: self
                        .models
                        .deployment(&wanted.deployment, author.as_ref())
                        .ok_or_else(|| {
                            // It may be loading.
                            let message = format!(
                                "metrics.judge.deployment: nothing is served as {} here",
                                wanted.deployment
                            );
                            TaskFailure::passing("no_judge", message)
                        })?,
                    patience,
                },
                rubric: wanted.rubric.clone(),
                reference: wanted.reference,
                sampling: wanted.sampling.clone(),
            }),
            None => None,
        };
        let renderer = match prompts.iter().any(|asking| asking.prompt.is_some()) {
            true => Some(self.models.renderer().await?),
            false => None,
        };
        let work = Arc::new(Work {
            measures,
            settings,
            prompts,
            rows,
            corpus,
            renderer,
        });
        work.check().await?;
        let runs = if run.baseline_version.is_some() { 2 } else { 1 };
        context.log(&format!(
            "rows: {}, by prompts: {}",
            work.rows.len(),
            work.prompts.len()
        ));
        Ok(Session {
            store,
            context,
            model: store.get::<Model>(version.model).await?,
            policy,
            judge,
            progress: Progress {
                done: AtomicUsize::new(0),
                of: runs * work.size(),
            },
            work,
        })
    }

    async fn target(
        &self,
        session: &Session<'_>,
        version: &Stored<ModelVersion>,
    ) -> Result<Target, TaskFailure> {
        let settings = &session.work.settings;
        let loading = self
            .models
            .version(session.store, &session.model, version, settings);
        // Given up, what is being loaded ends with its process.
        let target = tokio::select! {
            target = loading => target?,
            reason = session.context.stopped() => {
                let message = format!("it was told to stop ({reason:?}) while the version was loaded");
                return Err(TaskFailure::passing("stopped", message));
            }
        };
        session.context.log(&format!(
            "asking {} (revision {})",
            target.model.model(),
            target.model.revision()
        ));
        Ok(target)
    }

    /// The live version's run with its samples: one that says the same things about the same questions, or a new one.
    async fn baseline(
        &self,
        session: &Session<'_>,
        run: &Stored<EvaluationRun>,
        plan: &Plan,
    ) -> Result<Option<(Stored<EvaluationRun>, Vec<Scored>)>, TaskFailure> {
        let Some(live) = run.baseline_version else {
            return Ok(None);
        };
        let store = session.store;
        let version = store.get::<ModelVersion>(live).await?;
        let found = match earlier(store, run, plan, &version).await? {
            Some(earlier) => {
                session
                    .progress
                    .done
                    .fetch_add(session.work.size(), Relaxed);
                session
                    .context
                    .log(&format!("the live version was measured by {}", earlier.id));
                earlier
            }
            None => {
                let own = self.own_baseline(session, run, plan, &version).await?;
                let target = self.target(session, &version).await?;
                let judge = session.judge.as_ref();
                let collecting = session.collect(own.id, &version, &target, judge, None);
                target.while_it_lives(collecting).await?;
                let samples = session.samples(own.id).await?;
                let outcome = session
                    .conclude(samples, None, None, Purpose::Baseline)
                    .await?;
                states::finish(store, own.id, outcome).await?
            }
        };
        let samples = session.samples(found.id).await?;
        Ok(Some((found, samples)))
    }

    /// The run that measures the live version for this task; an earlier attempt may have begun it.
    async fn own_baseline(
        &self,
        session: &Session<'_>,
        run: &Stored<EvaluationRun>,
        plan: &Plan,
        version: &Stored<ModelVersion>,
    ) -> Result<Stored<EvaluationRun>, TaskFailure> {
        let store = session.store;
        let task: TaskId = session.context.task();
        let listing = Listing::<EvaluationRun>::new()
            .is("task", &task)
            .is("model_version", &version.id)
            .limit(1);
        if let Some(begun) = store.list(&listing).await?.items.pop() {
            return Ok(states::begin(store, begun.id).await?);
        }
        let digest = version.digest.clone().ok_or_else(|| {
            TaskFailure::lasting("no_baseline", "the live version has no digest any more")
        })?;
        let plan = Plan {
            purpose: Purpose::Baseline,
            ..plan.clone()
        };
        let made = EvaluationRun {
            model_version: version.id,
            artifact_digest: digest,
            baseline_version: None,
            plan: order::document(&plan),
            status: RunStatus::Queued,
            started_at: None,
            ..run.record.clone()
        };
        let made = store.create(&states::actor(), made).await?;
        Ok(states::begin(store, made.id).await?)
    }
}

/// The newest finished run about `version` that answers the same questions, measured the same way.
async fn earlier(
    store: &Store,
    run: &EvaluationRun,
    plan: &Plan,
    version: &Stored<ModelVersion>,
) -> Result<Option<Stored<EvaluationRun>>, TaskFailure> {
    let listing = Listing::<EvaluationRun>::new()
        .is("evaluation", &run.evaluation)
        .is("model_version", &version.id)
        .is("status", &RunStatus::Succeeded)
        .is("policy_digest", &run.policy_digest)
        .is("test_set", &run.test_set)
        .is_null("withdrawn_at")
        .limit(MAX_LIMIT);
    let prompts = json!(plan.prompt_versions);
    let same = |earlier: &Stored<EvaluationRun>| {
        Some(&*earlier.artifact_digest) == version.digest.as_deref()
            && earlier.plan.0["prompt_versions"] == prompts
    };
    Ok(store.list(&listing).await?.items.into_iter().find(same))
}
