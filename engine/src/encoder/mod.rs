//! Text encoders: embeddings, rerankers and classifiers.
//!
//! One text is one [`Job`](worker::Job) in a queue that sorts by length; worker
//! threads, each running on itself alone, take what is there and run it on one copy
//! of the weights ([`crate::batcher`]). A text that comes when nothing else runs is computed by
//! one more session that spreads over all cores. Texts of usual length are
//! tokenised by the caller, which takes microseconds; long ones by a thread of
//! their own, so that no async thread stands still.

mod graph;
mod options;
pub(crate) mod pooling;
mod probe;
mod runner;
mod text;
mod worker;

use std::path::Path;
use std::sync::Arc;

use crate::backend::onnx::ShapeProfile;
use crate::backend::tensorrt::NativeOptions;
use crate::batcher::{Terms, Ticket, WorkQueue, WorkStats};
use crate::error::{LoadError, SubmitError};
use crate::folder::{EncoderConfig, ModelFolder, ModelKind};
use crate::request::Meter;
use crate::tokenizer::TextTokenizer;
use graph::Head;
pub use options::{
    Classification, EmbedOptions, Embedding, EncodeError, EncodeOptions, EncoderInput,
    EncoderOptions, PairScore,
};
use text::{Encoded, EncoderText, LongText};
use worker::Job;

/// A loaded encoder; cheap to clone. Its threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Encoder(Arc<Inner>, Option<Meter>);

#[derive(Debug)]
struct Inner {
    name: String,
    text: Arc<EncoderText>,
    queue: Arc<WorkQueue<Job, Vec<f32>>>,
    long_texts: Arc<WorkQueue<LongText, Encoded>>,
    head: Head,
    normalize: bool,
    dimensions: usize,
    labels: Vec<String>,
    native: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        self.long_texts.close();
    }
}

impl Encoder {
    /// Loads the folder, warms up, compares with the folder's probe and starts
    /// the threads. Blocks for about a second.
    ///
    /// # Errors
    /// [`LoadError::Folder`], [`LoadError::Unsupported`] (not an encoder, or a
    /// graph with unknown inputs), [`LoadError::Parity`], [`LoadError::Runtime`].
    pub fn load(name: &str, dir: &Path, options: &EncoderOptions) -> Result<Self, LoadError> {
        Self::load_on(name, dir, options, None)
    }

    /// As [`Self::load`], on TensorRT itself rather than through ONNX Runtime: the folder's
    /// `model.onnx` is built first, which takes minutes, or its `model.plan` is what was
    /// built. `options.provider` and `options.gpu` do not count.
    ///
    /// # Errors
    /// As [`Self::load`]; [`LoadError::DoesNotFit`].
    pub fn load_native(
        name: &str,
        dir: &Path,
        options: &EncoderOptions,
        native: &NativeOptions,
    ) -> Result<Self, LoadError> {
        Self::load_on(name, dir, options, Some(native))
    }

    fn load_on(
        name: &str,
        dir: &Path,
        options: &EncoderOptions,
        native: Option<&NativeOptions>,
    ) -> Result<Self, LoadError> {
        let config = encoder_config(name, dir)?;
        let tokenizer = Arc::new(TextTokenizer::from_folder(dir)?);
        let mut sessions = worker::Sessions::open(name, &config, options, native)?;
        let declared = config.max_tokens as usize;
        let mut max_tokens = options.max_tokens.map_or(declared, |max| max.min(declared));
        let mut options = options.clone();
        if let Some([texts, tokens]) = sessions.reach() {
            tracing::info!(model = name, texts, tokens, "the engine's largest batch");
            max_tokens = max_tokens.min(tokens);
            options.budget.items = options.budget.items.min(texts);
        }
        let text =
            EncoderText::new(tokenizer, max_tokens).map_err(|reason| LoadError::Unsupported {
                model: name.to_owned(),
                reason,
            })?;
        let text = Arc::new(text);
        let dimensions = sessions.warm_up(name, &text)?;
        if options.probe {
            probe::check(name, dir, &text, &config, sessions.first())?;
        }
        let head = sessions.head();
        let queue = Arc::new(WorkQueue::new(options.max_waiting, sessions.workers()));
        let long_texts = Arc::new(WorkQueue::new(text::MAX_LONG_TEXTS, 1));
        sessions.start(name, &queue, &options)?;
        text::start(name, &long_texts, &text)?;
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            text,
            queue,
            long_texts,
            head,
            normalize: config.normalize,
            dimensions,
            labels: config.labels,
            native: native.is_some(),
        });
        Ok(Self(inner, None))
    }

    /// The same encoder, whose inputs count in `meter` once their run has begun, whether or not
    /// somebody still waits for them.
    #[must_use]
    pub fn metered(&self, meter: &Meter) -> Self {
        Self(Arc::clone(&self.0), Some(meter.clone()))
    }

    /// The embedding of one input. Dropping the future takes it out of the queue.
    ///
    /// # Errors
    /// [`SubmitError::TooLong`] unless `truncate`; [`SubmitError::Invalid`] naming
    /// `input` or `dimensions`; overload and failures as [`EncodeError`] says.
    pub async fn embed(
        &self,
        input: EncoderInput,
        options: EmbedOptions,
    ) -> Result<Embedding, EncodeError> {
        if self.0.head != Head::Embedding {
            return Err(wrong_task("embeddings", "it has a classification head").into());
        }
        let normalize = options.normalize.unwrap_or(self.0.normalize);
        let dimensions = options.dimensions.unwrap_or(self.0.dimensions);
        if !(1..=self.0.dimensions).contains(&dimensions) {
            return Err(SubmitError::Invalid {
                param: "dimensions",
                message: format!(
                    "`dimensions` is {dimensions}, `{}` has 1 to {}",
                    self.0.name, self.0.dimensions
                ),
            }
            .into());
        }
        let encoded = self.encode(input, &options.encode).await?;
        let tokens = encoded.tokens();
        let (mut vector, timings) = self.submit(encoded, &options.encode)?.wait().await?;
        vector.truncate(dimensions);
        if normalize {
            pooling::normalize(&mut vector);
        }
        Ok(Embedding {
            vector,
            tokens,
            timings,
        })
    }

    /// Relevance of each document to the query, by a model with one output
    /// (a cross-encoder). All documents are queued at once.
    ///
    /// # Errors
    /// As [`embed`](Self::embed); the first error of any document.
    pub async fn score_pairs(
        &self,
        query: &str,
        documents: &[String],
        options: EncodeOptions,
    ) -> Result<Vec<PairScore>, EncodeError> {
        if self.0.head != (Head::Logits { classes: 1 }) {
            return Err(wrong_task("reranking", "it does not score pairs").into());
        }
        let query = self.tokenize(query.to_owned(), false, &options).await?;
        let mut waiting = Vec::with_capacity(documents.len());
        for document in documents {
            let document = self.tokenize(document.clone(), false, &options).await?;
            let pair = self
                .0
                .text
                .pair(&query.ids, &document.ids, options.truncate)?;
            let tokens = pair.tokens();
            waiting.push((tokens, self.submit(pair, &options)?));
        }
        let mut scores = Vec::with_capacity(waiting.len());
        for (tokens, ticket) in waiting {
            let (logits, _) = ticket.wait().await?;
            let score = logits
                .first()
                .map_or(f32::NAN, |&logit| pooling::logistic(logit));
            scores.push(PairScore { score, tokens });
        }
        Ok(scores)
    }

    /// Probabilities of the model's labels for one input.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub async fn classify(
        &self,
        input: EncoderInput,
        options: EncodeOptions,
    ) -> Result<Classification, EncodeError> {
        if self.0.head == Head::Embedding {
            return Err(wrong_task("classification", "it has no classification head").into());
        }
        let encoded = self.encode(input, &options).await?;
        let tokens = encoded.tokens();
        let (logits, timings) = self.submit(encoded, &options)?.wait().await?;
        Ok(Classification {
            probabilities: pooling::probabilities(&logits),
            tokens,
            timings,
        })
    }

    async fn encode(
        &self,
        input: EncoderInput,
        options: &EncodeOptions,
    ) -> Result<Encoded, EncodeError> {
        let encoded = match input {
            EncoderInput::Text(text) => self.tokenize(text, true, options).await?,
            EncoderInput::Tokens(ids) => self.0.text.check_ids(ids)?,
        };
        Ok(self.0.text.fit(encoded, options.truncate)?)
    }

    async fn tokenize(
        &self,
        text: String,
        special: bool,
        options: &EncodeOptions,
    ) -> Result<Encoded, EncodeError> {
        let text = self.0.text.bounded(text, options.truncate)?;
        if text.len() <= text::LONG_TEXT {
            return Ok(self.0.text.tokenize(&text, special)?);
        }
        let terms = Terms {
            tokens: text.len(),
            priority: options.priority,
            deadline: options.deadline,
        };
        let ticket = self
            .0
            .long_texts
            .submit(LongText { text, special }, terms)?;
        Ok(ticket.wait().await?.0)
    }

    fn submit(
        &self,
        encoded: Encoded,
        options: &EncodeOptions,
    ) -> Result<Ticket<Job, Vec<f32>>, SubmitError> {
        let terms = Terms {
            tokens: encoded.tokens(),
            priority: options.priority,
            deadline: options.deadline,
        };
        let meter = self.1.clone();
        self.0.queue.submit(Job { encoded, meter }, terms)
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        self.0.text.tokenizer()
    }

    /// Elements of an embedding, or classes.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.0.dimensions
    }

    /// Tokens that one input may have, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.0.text.max_tokens()
    }

    /// Names of the classes, by index; empty for an embedding model.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.0.labels
    }

    /// Whether [`embed`](Self::embed) works.
    #[must_use]
    pub fn embeds(&self) -> bool {
        self.0.head == Head::Embedding
    }

    /// Whether [`score_pairs`](Self::score_pairs) works.
    #[must_use]
    pub fn scores_pairs(&self) -> bool {
        self.0.head == (Head::Logits { classes: 1 })
    }

    /// Whether TensorRT itself computes it, and not ONNX Runtime.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.0.native
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &WorkStats {
        &self.0.queue.stats
    }

    /// Texts waiting and batches running, at this moment.
    #[must_use]
    pub fn load_now(&self) -> (usize, usize) {
        self.0.queue.load()
    }

    /// Whether no worker was lost.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.0.queue.healthy() && self.0.long_texts.healthy()
    }

    /// Whether the workers have ended and given their memory back.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.0.queue.ended()
    }

    /// As [`close`](Self::close), but what waits fails.
    pub fn abort(&self) {
        let reason = "the model is being unloaded";
        self.0.queue.fail(reason);
        self.0.long_texts.fail(reason);
    }

    /// Refuses new inputs; what waits still runs, then the threads end.
    pub fn close(&self) {
        self.0.queue.close();
        self.0.long_texts.close();
    }
}

/// Shapes of the batches that an encoder with these options will run, for an engine that is
/// built ahead.
///
/// # Errors
/// The graph cannot be read.
pub fn batch_profiles(
    config: &EncoderConfig,
    options: &EncoderOptions,
) -> Result<Vec<ShapeProfile>, LoadError> {
    worker::batches(config, options)
}

fn encoder_config(name: &str, dir: &Path) -> Result<EncoderConfig, LoadError> {
    match ModelFolder::open(dir)?.kind {
        ModelKind::Encoder(config) => Ok(config),
        ModelKind::Generative(_) | ModelKind::Tensor { .. } => Err(LoadError::Unsupported {
            model: name.to_owned(),
            reason: "it is not a text encoder: expected config.json, tokenizer.json and model.onnx"
                .to_owned(),
        }),
    }
}

fn wrong_task(task: &str, reason: &str) -> SubmitError {
    SubmitError::Invalid {
        param: "model",
        message: format!("the model cannot be used for {task}: {reason}"),
    }
}

#[cfg(test)]
mod tests;
