//! One run under way: what its steps share, and how samples become its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::asker::Asker;
use super::bad_plan;
use super::collect::{Answers, Asking, Collector, Progress, Work};
use super::judge::Judge;
use super::plan::{Measures, Plan, Purpose};
use super::report::{self, Others, PromptReport, Scored, scored};
use super::states::Outcome;
use super::target::Target;
use crate::domain::Verdict;
use crate::domain::record::{Model, ModelVersion, PromptVersion};
use crate::evaluation::prompt::{MessageTemplate, Prompt, PromptError, PromptLimits};
use crate::evaluation::sample::Output;
use crate::evaluation::verdict::{self, Policy};
use crate::id::{EvaluationRunId, ModelVersionId};
use crate::store::{MAX_LIMIT, SampleFilter, Store, Stored};
use crate::tasks::{TaskContext, TaskFailure};

/// A run under way: what its steps share.
pub(super) struct Session<'a> {
    pub(super) store: &'a Store,
    pub(super) context: &'a TaskContext,
    pub(super) model: Stored<Model>,
    pub(super) work: Arc<Work>,
    pub(super) policy: Policy,
    pub(super) judge: Option<Judge>,
    pub(super) progress: Progress,
}

/// The texts that the live version answered.
pub(super) fn answers(samples: &[Scored]) -> Answers {
    let mut answers = HashMap::new();
    for Scored { sample, prompt, .. } in samples {
        if let Ok(Output::Text(text)) = &sample.output {
            answers.insert((prompt.clone(), sample.row.clone()), text.clone());
        }
    }
    answers
}

impl Session<'_> {
    pub(super) async fn collect(
        &self,
        run: EvaluationRunId,
        version: &ModelVersion,
        target: &Target,
        judge: Option<&Judge>,
        live: Option<&Answers>,
    ) -> Result<(), TaskFailure> {
        let asker = Asker {
            model: target.model.clone(),
            patience: Duration::from_secs(self.work.settings.timeout_s.into()),
        };
        let pairwise = self
            .work
            .measures
            .judge
            .as_ref()
            .is_some_and(|judge| judge.pairwise);
        let collector = Collector {
            store: self.store,
            context: self.context,
            run,
            what: &format!("{}@v{}", self.model.name, version.number),
            work: &self.work,
            asker: &asker,
            judge,
            live: live.filter(|_| pairwise),
            progress: &self.progress,
        };
        collector.collect().await
    }

    /// All samples of a run, in the order of the test set.
    pub(super) async fn samples(&self, run: EvaluationRunId) -> Result<Vec<Scored>, TaskFailure> {
        let mut all = Vec::new();
        let mut filter = SampleFilter::default();
        loop {
            let page = self.store.samples(run, &filter, MAX_LIMIT).await?;
            for stored in &page.items {
                let scored = scored(stored).map_err(|problem| {
                    let message = format!("sample {} of {run}: {problem}", stored.item);
                    TaskFailure::lasting("bad_sample", message)
                })?;
                all.push(scored);
            }
            filter.after = page.next;
            if filter.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// From samples to numbers and verdict, beside the runtime's workers: resampling is hard work.
    pub(super) async fn conclude(
        &self,
        samples: Vec<Scored>,
        live: Option<Vec<Scored>>,
        live_run: Option<(EvaluationRunId, ModelVersionId)>,
        purpose: Purpose,
    ) -> Result<Outcome, TaskFailure> {
        let work = Arc::clone(&self.work);
        let policy = (purpose == Purpose::Verdict).then(|| self.policy.clone());
        let conclude = move || {
            conclude(
                &work,
                policy.as_ref(),
                &samples,
                live.as_deref(),
                live_run,
                purpose,
            )
        };
        tokio::task::spawn_blocking(conclude)
            .await
            .map_err(|panic| {
                TaskFailure::lasting(
                    "panicked",
                    format!("the report could not be computed: {panic}"),
                )
            })
    }
}

fn conclude(
    work: &Work,
    policy: Option<&Policy>,
    samples: &[Scored],
    live: Option<&[Scored]>,
    live_run: Option<(EvaluationRunId, ModelVersionId)>,
    purpose: Purpose,
) -> Outcome {
    let of = |samples: &[Scored], prompt: &str| -> Vec<Scored> {
        let mine = samples.iter().filter(|scored| scored.prompt == prompt);
        mine.cloned().collect()
    };
    let first = work
        .prompts
        .first()
        .map_or_else(Vec::new, |asking| of(samples, &asking.id));
    let reports: Vec<PromptReport> = work
        .prompts
        .iter()
        .enumerate()
        .map(|(at, asking)| {
            let live = live.map(|live| of(live, &asking.id));
            let others = Others {
                live: live.as_deref(),
                first: (at > 0).then_some(&*first),
            };
            let own = of(samples, &asking.id);
            report::of_prompt(
                (&asking.id, &asking.label),
                &own,
                others,
                &work.measures,
                policy,
            )
        })
        .collect();
    let leading = reports.first();
    let scores = leading.map_or_else(Value::default, |leading| {
        let values = leading.measurements.iter();
        values
            .map(|it| (it.metric.clone(), json!(it.value)))
            .collect()
    });
    let judged = leading.and_then(|leading| leading.judgement.as_ref());
    let verdict = judged.map(|judgement| match judgement.verdict {
        verdict::Verdict::Passed => Verdict::Passed,
        verdict::Verdict::Inconclusive => Verdict::Inconclusive,
        verdict::Verdict::Failed => Verdict::Failed,
    });
    Outcome {
        samples: i64::try_from(samples.len()).unwrap_or(i64::MAX),
        scores,
        verdict,
        report: json!({
            "purpose": purpose,
            "rows": work.rows.len(),
            "reasons": judged.map(|judgement| &judgement.reasons),
            "baseline": live_run.map(|(run, version)| json!({"run": run, "model_version": version})),
            "prompts": reports,
        }),
    }
}

/// The prompt versions of a plan, compiled; where there are none, the row's own text.
pub(super) async fn prompts(
    store: &Store,
    plan: &Plan,
    measures: &Measures,
) -> Result<Vec<Asking>, TaskFailure> {
    if plan.prompt_versions.is_empty() {
        return Ok(vec![Asking {
            id: String::new(),
            label: "as it is".into(),
            prompt: None,
            sampling: measures.ask.sampling.clone(),
        }]);
    }
    let mut prompts = Vec::new();
    for id in &plan.prompt_versions {
        let stored = store.get::<PromptVersion>(*id).await?;
        let label = format!("{}@v{}", stored.name, stored.number);
        let prompt =
            compile(&stored.template).map_err(|error| bad_plan(format!("{label}: {error}")))?;
        let mut sampling = measures.ask.sampling.clone();
        if let Value::Object(own) = &stored.sampling.0 {
            sampling.extend(own.clone());
        }
        prompts.push(Asking {
            id: id.to_string(),
            label,
            prompt: Some(prompt),
            sampling,
        });
    }
    Ok(prompts)
}

/// A stored prompt: a list of messages as JSON, or the text of a user's one.
///
/// # Errors
/// Names the message and what is wrong with its template.
pub fn compile(template: &str) -> Result<Prompt, PromptError> {
    let messages = serde_json::from_str::<Vec<MessageTemplate>>(template).unwrap_or_else(|_| {
        vec![MessageTemplate {
            role: "user".into(),
            content: template.to_owned(),
        }]
    });
    Prompt::compile(messages, PromptLimits::default())
}
