//! A language model with everything that text needs: the facade the gateway uses.

mod fake;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::backend::fake::{FakeControl, FakeOptions};
use crate::backend::onnx::{self, OnnxOptions};
use crate::error::LoadError;
use crate::folder::{ModelFolder, ModelKind};
use crate::generator::{GeneratorHandle, GeneratorOptions};
use crate::grammar::{CompilerOptions, GrammarCompiler};
use crate::tokenizer::TextTokenizer;
use crate::tokenizer::template::{ChatTemplate, TemplateLimits};
use crate::tokenizer::tools::ToolFormat;

/// How a language model is loaded and run.
#[derive(Debug, Clone, Default)]
pub struct LanguageOptions {
    /// Device and memory.
    pub onnx: OnnxOptions,
    /// Scheduling. Its `eos` is replaced by the model's own.
    pub generator: GeneratorOptions,
    /// Constrained output.
    pub grammar: CompilerOptions,
    /// Of its chat template.
    pub template: TemplateLimits,
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name as configured.
    pub name: String,
    /// Tokens of prompt and completion together: what the model was made for, or
    /// what a slot holds, whichever is less.
    pub context_length: usize,
    /// Size of the logits' last dimension; token ids are below it.
    pub vocab: usize,
    /// Architecture, for example `llama`.
    pub architecture: String,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
}

/// A causal language model, ready to serve.
#[derive(Debug)]
pub struct LanguageModel {
    /// What is known of it.
    pub info: ModelInfo,
    /// Text to ids and back.
    pub tokenizer: Arc<TextTokenizer>,
    /// Messages to prompt; none for a base model.
    pub template: Option<Arc<ChatTemplate>>,
    /// How it writes tool calls.
    pub tools: ToolFormat,
    /// Constrained output.
    pub grammar: Arc<GrammarCompiler>,
    /// The device thread.
    pub generator: GeneratorHandle,
}

impl LanguageModel {
    /// Loads a folder as `onnxruntime_genai.models.builder` writes it. Blocks until
    /// the model is warm and its probe has passed.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load(name: &str, dir: &Path, options: LanguageOptions) -> Result<Self, LoadError> {
        let ModelKind::Generative(config) = ModelFolder::open(dir)?.kind else {
            return Err(LoadError::Unsupported {
                model: name.to_owned(),
                reason: "the folder holds no causal language model (genai_config.json)".to_owned(),
            });
        };
        let tokenizer = TextTokenizer::from_folder(dir)?;
        if tokenizer.vocab_size() == 0 {
            return Err(LoadError::Folder {
                path: dir.join("tokenizer.json"),
                reason: "the vocabulary is empty".to_owned(),
            });
        }
        let template =
            ChatTemplate::from_folder(dir)?.map(|template| template.within(options.template));
        let parts = Parts {
            architecture: config.architecture.clone(),
            context_length: config.context_length as usize,
            tokenizer,
            template,
            grammar: options.grammar,
        };
        let factory = onnx::language_model(dir, name, &options.onnx)?;
        parts.start(name, options.generator, |generator| {
            GeneratorHandle::start(name, factory, generator)
        })
    }

    /// A model without weights: the fake backend behind a byte-level tokenizer
    /// (ids 0 to 255 are the bytes) and a `ChatML` template. For tests of the layers
    /// above and for measuring their overhead.
    ///
    /// # Errors
    /// The device thread cannot be started.
    pub fn fake(name: &str, options: FakeOptions) -> Result<Self, LoadError> {
        let generator = GeneratorOptions::default();
        Self::fake_with(name, options, FakeControl::new(), generator)
    }

    /// The same, steered by `control`.
    ///
    /// # Errors
    /// As [`Self::fake`].
    pub fn fake_with(
        name: &str,
        mut options: FakeOptions,
        control: FakeControl,
        generator: GeneratorOptions,
    ) -> Result<Self, LoadError> {
        let tokenizer = fake::tokenizer()?;
        let vocab = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        options.vocab = options.vocab.max(vocab);
        let parts = Parts {
            architecture: "fake".to_owned(),
            context_length: options.capacity as usize,
            template: Some(fake::template()?),
            tokenizer,
            grammar: CompilerOptions::default(),
        };
        parts.start(name, generator, |generator| {
            let factory = crate::backend::fake::FakeBackend::factory(options, control);
            GeneratorHandle::start(name, factory, generator)
        })
    }
}

/// What there is before the backend.
struct Parts {
    architecture: String,
    context_length: usize,
    tokenizer: TextTokenizer,
    template: Option<ChatTemplate>,
    grammar: CompilerOptions,
}

impl Parts {
    /// Starts the device thread and puts everything together.
    fn start(
        self,
        name: &str,
        mut options: GeneratorOptions,
        start: impl FnOnce(GeneratorOptions) -> Result<GeneratorHandle, LoadError>,
    ) -> Result<LanguageModel, LoadError> {
        let grammar = GrammarCompiler::with_options(&self.tokenizer, self.grammar)?;
        let eos = self.tokenizer.eos().to_vec();
        options.eos.clone_from(&eos);
        let generator = start(options)?;
        let capabilities = generator.capabilities();
        let info = ModelInfo {
            name: name.to_owned(),
            context_length: self.context_length.min(capabilities.capacity as usize),
            vocab: capabilities.vocab as usize,
            architecture: self.architecture,
            eos,
        };
        let source = self.template.as_ref().map(ChatTemplate::source);
        Ok(LanguageModel {
            tools: ToolFormat::detect(source.unwrap_or_default()),
            template: self.template.map(Arc::new),
            tokenizer: Arc::new(self.tokenizer),
            grammar: Arc::new(grammar),
            info,
            generator,
        })
    }
}
