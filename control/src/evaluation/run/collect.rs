//! Asking every row by every prompt version, some at once, and keeping what comes back as it comes. What a run has
//! samples of is not asked again: that is all there is to resuming.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::ask::{self, Case};
use super::asker::{Asker, Reply};
use super::corpus::Corpus;
use super::judge::Judge;
use super::plan::{Measures, RunSettings};
use super::report;
use super::rows::{BadTestSet, Row};
use crate::evaluation::prompt::Prompt;
use crate::evaluation::sample::{Output, Reference, Sample, Score, Timings, Tokens};
use crate::id::EvaluationRunId;
use crate::sandbox::render::{Rendered, Rows, SharedRenderer};
use crate::store::{EvaluationSample, Json, Store};
use crate::tasks::{TaskContext, TaskFailure};
use crate::time::Timestamp;

/// Samples written at once, unless [`PAUSE`] is over before.
const BATCH: usize = 50;
const PAUSE: Duration = Duration::from_secs(1);
/// Rows that are rendered by one request to the process that does it.
const TOGETHER: usize = 64;
/// So many failures one after the other are the model's, not the rows'.
const STREAK: usize = 20;

/// A prompt version, compiled.
#[derive(Debug)]
pub(super) struct Asking {
    /// Its id; empty where the row's text is sent as it is.
    pub(super) id: String,
    pub(super) label: String,
    pub(super) prompt: Option<Prompt>,
    /// The evaluation's, then the prompt version's own.
    pub(super) sampling: Map<String, Value>,
}

/// All that is asked: of the candidate, and of the live version the same way.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) measures: Measures,
    pub(super) settings: RunSettings,
    pub(super) prompts: Vec<Asking>,
    pub(super) rows: Vec<Row>,
    /// The documents of `retrieve`.
    pub(super) corpus: Vec<(String, String)>,
    /// Renders the prompts; none where there are none.
    pub(super) renderer: Option<SharedRenderer>,
}

impl Work {
    /// Each row is tried by each prompt, so that a mistake in row 700 does not cost the 699 before it.
    ///
    /// # Errors
    /// [`BadTestSet`], naming row and column; a template that ended the process that rendered it.
    pub(super) async fn check(&self) -> Result<(), TaskFailure> {
        for asking in &self.prompts {
            for rows in self.rows.chunks(TOGETHER) {
                for case in self.cases(rows, asking).await? {
                    case.map_err(BadTestSet)?;
                }
                // Others have a turn.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn case(&self, row: &Row, asking: &Asking) -> Result<Result<Case, String>, TaskFailure> {
        let mut cases = self.cases(std::slice::from_ref(row), asking).await?;
        Ok(cases
            .pop()
            .unwrap_or_else(|| Err("it was not rendered".into())))
    }

    async fn cases(
        &self,
        rows: &[Row],
        asking: &Asking,
    ) -> Result<Vec<Result<Case, String>>, TaskFailure> {
        let ask = &self.measures.ask;
        let (Some(prompt), Some(renderer)) = (&asking.prompt, &self.renderer) else {
            return Ok(rows.iter().map(|row| ask::case(ask, row, None)).collect());
        };
        let asked = Rows {
            templates: prompt.templates(),
            limits: prompt.limits(),
            rows: rows.iter().map(|row| (&*row.item, &row.columns)).collect(),
        };
        let rendered: Rendered = renderer.render(&asked).await.map_err(|ended| {
            TaskFailure::lasting("prompt_process", format!("{}: {ended}", asking.label))
        })?;
        let cases = rows.iter().zip(rendered);
        Ok(cases
            .map(|(row, messages)| ask::case(ask, row, Some(messages?)))
            .collect())
    }

    /// Samples of one run.
    pub(super) fn size(&self) -> usize {
        self.rows.len() * self.prompts.len()
    }

    fn concurrency(&self) -> usize {
        self.settings.concurrency.into()
    }
}

/// How far a task is, over all its runs.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) done: AtomicUsize,
    pub(super) of: usize,
}

impl Progress {
    fn step(&self, context: &TaskContext, what: &str) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        let fraction = done as f64 / self.of.max(1) as f64;
        // The rest is the report.
        context.progress(fraction * 0.98, format!("{what}: {done} of {}", self.of));
    }
}

/// The answers of the live version, by prompt version and item: what a judge compares with.
pub(super) type Answers = HashMap<(String, String), String>;

/// One run's asking.
pub(super) struct Collector<'a> {
    pub(super) store: &'a Store,
    pub(super) context: &'a TaskContext,
    pub(super) run: EvaluationRunId,
    pub(super) what: &'a str,
    pub(super) work: &'a Work,
    pub(super) asker: &'a Asker,
    pub(super) judge: Option<&'a Judge>,
    pub(super) live: Option<&'a Answers>,
    pub(super) progress: &'a Progress,
}

/// A stored sample, and whose fault it is if it failed.
struct Answer {
    sample: EvaluationSample,
    of_server: bool,
}

impl Collector<'_> {
    /// Asks what was not asked yet, and returns when all of it is stored.
    ///
    /// # Errors
    /// [`TaskFailure`] if the task was told to stop, or the model answers nothing.
    pub(super) async fn collect(&self) -> Result<(), TaskFailure> {
        let there = self.store.sample_places(self.run).await?;
        self.progress.done.fetch_add(there.len(), Relaxed);
        let missing = self.missing(&there);
        if missing.is_empty() {
            return Ok(());
        }
        if !there.is_empty() {
            self.context.log(&format!(
                "{} of {} samples are there already",
                there.len(),
                self.work.size()
            ));
        }
        let corpus = match self.work.corpus.as_slice() {
            [] => None,
            documents => {
                let concurrency = self.work.concurrency();
                let embedding = Corpus::embed(self.asker, documents, concurrency);
                Some(Arc::new(self.unless_stopped(embedding).await??))
            }
        };
        let mut keeper = Keeper::new(self.store, !there.is_empty());
        let asking = stream::iter(missing)
            .map(|(row, prompt)| self.ask(row, prompt, corpus.as_ref()))
            .buffer_unordered(self.work.concurrency());
        tokio::pin!(asking);
        loop {
            match self.unless_stopped(asking.next()).await {
                Ok(Some(answer)) => {
                    self.progress.step(self.context, self.what);
                    keeper.take(answer?).await?;
                }
                Ok(None) => return keeper.flush().await,
                Err(stopped) => {
                    keeper.flush().await?;
                    return Err(stopped);
                }
            }
        }
    }

    /// Places of rows and prompts that have no sample yet, in the order of the test set.
    fn missing(&self, there: &HashSet<(String, i64)>) -> Vec<(usize, usize)> {
        let Work { rows, prompts, .. } = self.work;
        let all =
            (0..rows.len()).flat_map(|row| (0..prompts.len()).map(move |prompt| (row, prompt)));
        all.filter(|(row, prompt)| {
            let place = (prompts[*prompt].id.clone(), rows[*row].ordinal);
            !there.contains(&place)
        })
        .collect()
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, TaskFailure> {
        tokio::select! {
            done = work => Ok(done),
            reason = self.context.stopped() => {
                Err(TaskFailure::passing("stopped", format!("it was told to stop ({reason:?}); what was answered is kept")))
            }
        }
    }

    async fn ask(
        &self,
        row: usize,
        prompt: usize,
        corpus: Option<&Arc<Corpus>>,
    ) -> Result<Answer, TaskFailure> {
        let (row, asking) = (&self.work.rows[row], &self.work.prompts[prompt]);
        let kind = self.work.measures.ask.kind;
        let case = match self.work.case(row, asking).await? {
            Ok(case) => case,
            // Checked before; a template that reads the clock may still surprise.
            Err(problem) => return Ok(self.unasked(row, asking, problem)),
        };
        let Reply { said, answered } = self.asker.ask(kind, &case, &asking.sampling, corpus).await;
        let of_server = said.as_ref().is_err_and(|fault| fault.of_server);
        let mut detail = Map::new();
        let output = match said {
            Ok(said) => {
                if let Some(reason) = said.finish_reason {
                    detail.insert("finish_reason".into(), reason.into());
                }
                Ok(said.output)
            }
            Err(fault) => Err(fault.text),
        };
        let [judged, wins] = self.judge(row, asking, &case, &output, &mut detail).await;
        let sample = Sample {
            row: row.item.clone(),
            input: case.input,
            reference: case.reference,
            output,
            timings: Timings {
                first_token: answered.first_token.map(micros),
                total: Some(micros(answered.total)),
            },
            tokens: Tokens {
                input: answered.usage.prompt as u64,
                output: answered.usage.completion as u64,
            },
        };
        let given = [judged.as_ref(), wins.as_ref()];
        Ok(Answer {
            sample: self.stored(row, asking, &sample, given, detail),
            of_server,
        })
    }

    async fn judge(
        &self,
        row: &Row,
        asking: &Asking,
        case: &Case,
        output: &Result<Output, String>,
        detail: &mut Map<String, Value>,
    ) -> [Option<Score>; 2] {
        let (Some(judge), Ok(Output::Text(text))) = (self.judge, output) else {
            return [None, None];
        };
        let grade = judge.grade(case, text).await;
        detail.insert(report_name(0).into(), grade.detail);
        let live = self
            .live
            .and_then(|live| live.get(&(asking.id.clone(), row.item.clone())));
        let Some(live) = live else {
            return [Some(grade.score), None];
        };
        let wins = judge.compare(case, text, live).await;
        detail.insert(report_name(1).into(), wins.detail);
        [Some(grade.score), Some(wins.score)]
    }

    fn unasked(&self, row: &Row, asking: &Asking, problem: String) -> Answer {
        let sample = Sample {
            row: row.item.clone(),
            input: crate::evaluation::sample::Input::Texts(Vec::new()),
            reference: Reference::Nothing,
            output: Err(problem),
            timings: Timings::default(),
            tokens: Tokens::default(),
        };
        Answer {
            sample: self.stored(row, asking, &sample, [None, None], Map::new()),
            of_server: false,
        }
    }

    fn stored(
        &self,
        row: &Row,
        asking: &Asking,
        sample: &Sample,
        given: [Option<&Score>; 2],
        detail: Map<String, Value>,
    ) -> EvaluationSample {
        let measures = &self.work.measures;
        let scores = report::scores(sample, given, measures);
        let leading = measures.leading();
        let score = scores
            .get(&leading)
            .map_or_else(|| timed(measures, sample, &leading), Value::as_f64);
        let expected = match &sample.reference {
            Reference::Nothing => None,
            reference => Some(Json(json!(reference))),
        };
        let error = sample.output.as_ref().err().cloned();
        EvaluationSample {
            run: self.run,
            prompt_version: asking.id.clone(),
            ordinal: row.ordinal,
            item: row.item.clone(),
            input: Json(json!(sample.input)),
            expected,
            output: sample
                .output
                .as_ref()
                .ok()
                .map(|output| Json(json!(output))),
            passed: error.is_none() && measures.passes(score),
            scores: Json(Value::Object(scores)),
            score,
            error,
            latency_us: signed(sample.timings.total.unwrap_or_default()),
            first_token_us: sample.timings.first_token.map(signed),
            input_tokens: signed(sample.tokens.input),
            output_tokens: signed(sample.tokens.output),
            tags: Json(row.tags.clone()),
            detail: (!detail.is_empty()).then(|| Json(Value::Object(detail))),
            at: Timestamp::now(),
        }
    }
}

fn report_name(at: usize) -> &'static str {
    [super::plan::JUDGE, super::plan::JUDGE_WINS][at]
}

/// The score of a leading metric that is a time.
fn timed(measures: &Measures, sample: &Sample, leading: &str) -> Option<f64> {
    let metric = measures
        .measure
        .iter()
        .find(|metric| metric.name() == leading)?;
    metric.score(sample).value()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes samples in batches. Those of a streak of failures wait until it is over: if it is the model that is gone, a
/// later attempt should ask them again.
struct Keeper<'a> {
    store: &'a Store,
    waiting: Vec<EvaluationSample>,
    written: Instant,
    streak: usize,
    any_answer: bool,
}

impl<'a> Keeper<'a> {
    fn new(store: &'a Store, any_answer: bool) -> Self {
        Self {
            store,
            waiting: Vec::new(),
            written: Instant::now(),
            streak: 0,
            any_answer,
        }
    }

    async fn take(&mut self, answer: Answer) -> Result<(), TaskFailure> {
        let Answer { sample, of_server } = answer;
        match &sample.error {
            None => {
                self.streak = 0;
                self.any_answer = true;
            }
            Some(error) => {
                self.streak += 1;
                if self.streak >= STREAK && (of_server || !self.any_answer) {
                    let message = format!(
                        "{STREAK} requests one after the other were not answered, the last with: {error}"
                    );
                    return Err(match of_server {
                        true => TaskFailure::passing("no_answer", message),
                        false => TaskFailure::lasting("no_answer", message),
                    });
                }
            }
        }
        self.waiting.push(sample);
        let due = self.waiting.len() >= BATCH || self.written.elapsed() >= PAUSE;
        if due && self.streak == 0 {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TaskFailure> {
        let mut tx = self.store.begin().await?;
        tx.add_samples(&self.waiting).await?;
        tx.commit().await?;
        self.waiting.clear();
        self.written = Instant::now();
        Ok(())
    }
}
