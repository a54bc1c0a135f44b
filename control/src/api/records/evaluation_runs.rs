//! Runs of evaluations: asking for one, what it has seen, and how it differs from another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::datasets::refer_version;
use super::secrecy::hidden;
use super::versions::refer_model_version;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, limit_of};
use crate::api::caller::Caller;
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, filter, list};
use crate::domain::Verdict;
use crate::domain::record::{Access, Evaluation, EvaluationRun, Model, ModelVersion};
use crate::domain::roles::Verb;
use crate::domain::run::RunStatus;
use crate::evaluation::run::{self, Baseline, Difference, NewRun, OrderError, Part, RowDifference};
use crate::store::{Column as _, EvaluationSample, Listing, SampleFilter, Stored};
use crate::tasks::TaskError;

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        get(
            EvaluationRun::COLLECTION,
            Verb::View,
            "List evaluation runs",
        ),
        list::<EvaluationRun>,
    );
    api.route(
        get(
            EvaluationRun::ITEM,
            Verb::View,
            "Show an evaluation run; its samples take a grant on the test set",
        ),
        show,
    );
    api.route(
        post(
            "/evaluations/{id}/runs",
            Verb::RunTask,
            "Evaluate a version: makes a run and the task that does it",
        ),
        start,
    );
    api.route(
        get(
            "/evaluation_runs/{id}/samples",
            Verb::View,
            "The inputs and outputs of a run, filtered",
        ),
        samples,
    );
    api.route(
        get(
            "/evaluation_runs/{id}/diff",
            Verb::View,
            "What changed against another run, or another prompt version: worst first",
        ),
        diff,
    );
    api.route(
        post(
            "/evaluation_runs/{id}/withdraw",
            Verb::ApproveVersion,
            "Withdraw a run as evidence; a version that rests on it is registered again",
        ),
        withdraw,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

filter!(RunFilter {
    /// Id or name.
    evaluation: String,
    /// `model@v1`, or an id.
    model_version: String,
    /// Those that stand so.
    status: RunStatus,
    /// Those with this verdict.
    verdict: Verdict,
});

impl Resource for EvaluationRun {
    type Fields = NoFields;
    type Filter = RunFilter;
    const COLLECTION: &'static str = "/evaluation_runs";
    const ITEM: &'static str = "/evaluation_runs/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::RunTask;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        match caller.scope() {
            Some(department) => listing.where_clause(
                "model_version IN (SELECT w.id FROM model_versions w JOIN models m ON m.id = w.model WHERE m.department = ?)"
                    .into(),
                vec![department.to_value()],
            ),
            None => listing,
        }
    }

    async fn select(
        desk: &Desk,
        filter: &RunFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let evaluation = desk
            .refer_if::<Evaluation>("evaluation", filter.evaluation.as_deref())
            .await?;
        let version = match &filter.model_version {
            Some(text) => Some(
                super::versions::refer_model_version(desk, "model_version", text)
                    .await?
                    .id,
            ),
            None => None,
        };
        Ok(listing
            .is_if("evaluation", evaluation.as_ref())
            .is_if("model_version", version.as_ref())
            .is_if("status", filter.status.as_ref())
            .is_if("verdict", filter.verdict.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("an evaluation run is made by an evaluation task"))
    }
}

/// Which samples of a run.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SampleQuery {
    /// A prompt version's id.
    prompt_version: Option<String>,
    /// Those that passed, or did not.
    passed: Option<bool>,
    /// `true`: those whose request failed.
    error: Option<bool>,
    /// The item's own id in the test set.
    item: Option<String>,
    /// One of the row's tags.
    tag: Option<String>,
    /// Those whose leading metric is below.
    score_below: Option<f64>,
    /// Those whose leading metric is this or above.
    score_at_least: Option<f64>,
    /// Part of input, output or what was expected, in whatever case.
    contains: Option<String>,
    /// Items a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

pub(super) fn checked_limit(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit_of(limit);
    if (1..=crate::store::MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::field(
            "limit",
            format!("is {limit}, should be 1 to {}", crate::store::MAX_LIMIT),
        ))
    }
}

/// A run, and whether the caller sees what it asked and was answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunView {
    #[serde(flatten)]
    run: Stored<EvaluationRun>,
    /// Why its samples are not shown, and who can change that; `null` where they are.
    samples_hidden: Option<String>,
}

async fn show(call: Call) -> Result<Answer<RunView>, Problem> {
    let run = call.desk.find::<EvaluationRun>(call.segment("id")).await?;
    let samples_hidden = hidden(&call.desk, run.test_set).await?;
    Ok(Answer {
        version: Some(run.version),
        ..Answer::of(RunView {
            run,
            samples_hidden,
        })
    })
}

async fn check_visible(desk: &Desk, run: &EvaluationRun) -> Result<(), Problem> {
    match hidden(desk, run.test_set).await? {
        Some(why) => Err(Problem::new(http::StatusCode::FORBIDDEN, "hidden", why)),
        None => Ok(()),
    }
}

async fn samples(call: Call<SampleQuery>) -> Result<Answer<Items<EvaluationSample>>, Problem> {
    let run = call.desk.find::<EvaluationRun>(call.segment("id")).await?;
    check_visible(&call.desk, &run).await?;
    let limit = checked_limit(call.query.limit)?;
    let filter = SampleFilter {
        prompt_version: call.query.prompt_version,
        passed: call.query.passed,
        error: call.query.error,
        item: call.query.item,
        items: Vec::new(),
        tag: call.query.tag,
        score_below: call.query.score_below,
        score_at_least: call.query.score_at_least,
        contains: call.query.contains,
        after: call.query.cursor,
    };
    let page = call.desk.store.samples(run.id, &filter, limit).await?;
    Ok(Answer::of(page.into()))
}

/// Why something is done; it is kept in the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Why; kept in the audit log.
    #[schemars(length(min = 1), example = &"wrong tickets")]
    pub reason: String,
}

async fn withdraw(
    call: Call<NoQuery, Body<Reason>>,
) -> Result<Answer<Stored<EvaluationRun>>, Problem> {
    let run = call.desk.find::<EvaluationRun>(call.segment("id")).await?;
    let reason = call.body.0.reason;
    check_text("reason", &reason)?;
    if reason.trim().is_empty() {
        return Err(Problem::field("reason", "should say why"));
    }
    let actor = call.desk.actor().because(reason);
    let expected = call.expected.unwrap_or(run.version);
    let mut tx = call.desk.store.begin().await?;
    let version = tx.get::<ModelVersion>(run.model_version).await?;
    let is_author = version.author.is_some() && version.author == call.desk.caller.author();
    if is_author && run.verdict != Some(Verdict::Passed) {
        return Err(Problem::forbidden(
            "the author of a version does not put away the run that it failed; another approver or an administrator may",
        ));
    }
    let stored = run::withdraw(&mut tx, &actor, &run, expected).await?;
    tx.commit().await?;
    Ok(Answer::record(stored))
}

/// A run to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunFields {
    /// What is evaluated: `model@v2`, or an id.
    #[schemars(example = &"helpdesk@v2")]
    model_version: String,
    /// Prompts side by side, as `name@v1` or ids; the verdict is the first one's. The evaluation's own if empty.
    #[serde(default)]
    #[schemars(example = ["triage@v1", "triage@v2"])]
    prompt_versions: Vec<String>,
    /// The version to compare with: `live`, `none`, `model@v1` or an id; `live` if absent.
    #[serde(default)]
    #[schemars(example = &"helpdesk@v1")]
    baseline: Option<String>,
    /// Which of the waiting comes first: a level is worth a minute of waiting.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000), example = 10)]
    priority: i64,
}

async fn start(
    call: Call<NoQuery, Body<RunFields>>,
) -> Result<Answer<Stored<EvaluationRun>>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    let evaluation = desk.find::<Evaluation>(call.segment("id")).await?;
    if let Some(test_set) = evaluation.test_set {
        refer_version(desk, "test_set", &test_set.to_string(), Access::Use).await?;
    }
    let version = refer_model_version(desk, "model_version", &fields.model_version).await?;
    let department = desk
        .find::<Model>(&evaluation.model.to_string())
        .await?
        .department;
    desk.allow(Some(department))?;
    let mut prompt_versions = Vec::with_capacity(fields.prompt_versions.len());
    for text in &fields.prompt_versions {
        prompt_versions.push(run::prompt_named(&desk.store, &evaluation, text).await?);
    }
    let baseline = match fields.baseline.as_deref() {
        None | Some("live") => Baseline::Live,
        Some("none") => Baseline::Nothing,
        Some(text) => Baseline::Version(refer_model_version(desk, "baseline", text).await?.id),
    };
    let new = NewRun {
        evaluation,
        version,
        prompt_versions,
        baseline,
        department,
        priority: fields.priority,
    };
    let queue = &desk.open()?.queue;
    let made = run::order(queue, &desk.actor(), new).await?;
    let place = format!("/evaluation_runs/{}", made.id);
    Ok(Answer::record(made).at(place))
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Plan(error) => error.into(),
            OrderError::Store(error) | OrderError::Task(TaskError::Store(error)) => error.into(),
            OrderError::Task(error) => Self::conflict("conflict", error.to_string()),
        }
    }
}

/// Which two halves are compared, and by what.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct DiffQuery {
    /// The run before; the same run if absent.
    with: Option<String>,
    /// The id of the prompt version whose answers are shown as after; the run's first if absent.
    prompt_version: Option<String>,
    /// That of those before; the same one if absent.
    with_prompt_version: Option<String>,
    /// By whose scores rows are compared; the run's leading metric if absent.
    metric: Option<String>,
    /// Differences up to this are none; 0 if absent.
    #[schemars(range(min = 0))]
    tolerance: Option<f64>,
    /// Only rows that changed so: `worse`, `same`, `better`, `unknown`.
    change: Option<String>,
    /// Rows a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How two runs, or two prompt versions of one, differ.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunDifference {
    metric: String,
    worse: usize,
    same: usize,
    better: usize,
    unknown: usize,
    /// Worst first.
    items: Vec<RowDifference>,
    next_cursor: Option<String>,
}

async fn diff(call: Call<DiffQuery>) -> Result<Answer<RunDifference>, Problem> {
    let (desk, query) = (&call.desk, &call.query);
    let after = desk.find::<EvaluationRun>(call.segment("id")).await?;
    let before = match &query.with {
        Some(text) => desk.refer::<EvaluationRun>("with", text).await?,
        None => after.clone(),
    };
    for run in [&after, &before] {
        check_visible(desk, run).await?;
    }
    if query.tolerance.is_some_and(|it| it < 0.0) {
        return Err(Problem::field("tolerance", "should be 0 or more"));
    }
    let wanted = Difference {
        after: part(&after, query.prompt_version.as_deref()),
        before: part(
            &before,
            query
                .with_prompt_version
                .as_deref()
                .or(query.prompt_version.as_deref()),
        ),
        metric: query.metric.clone(),
        tolerance: query.tolerance.unwrap_or(0.0),
        change: match &query.change {
            Some(word) => Some(serde_json::from_value(Value::from(word.as_str())).map_err(
                |_| Problem::field("change", "should be worse, same, better or unknown"),
            )?),
            None => None,
        },
        limit: checked_limit(query.limit)? as usize,
        offset: match &query.cursor {
            Some(cursor) => cursor
                .parse()
                .map_err(|_| Problem::field("cursor", "is not one that a diff gave"))?,
            None => 0,
        },
    };
    let found = run::compare(&desk.store, &after.plan.0, &wanted).await?;
    Ok(Answer::of(RunDifference {
        metric: found.metric,
        worse: found.worse,
        same: found.same,
        better: found.better,
        unknown: found.unknown,
        next_cursor: found.next.map(|offset| offset.to_string()),
        items: found.rows,
    }))
}

/// The named prompt version's samples of a run, or its first one's.
fn part(run: &Stored<EvaluationRun>, prompt: Option<&str>) -> Part {
    let first = run.plan.0["prompt_versions"][0].as_str();
    Part {
        run: run.id,
        prompt: prompt.or(first).unwrap_or_default().to_owned(),
    }
}
