//! A chat or completion model, whole: tokenizer, template, grammars and generator.

use std::path::Path;
use std::sync::Arc;

use crate::backend::fake::{FakeBackend, FakeControl, FakeOptions};
use crate::backend::onnx::{self, OnnxOptions};
use crate::error::LoadError;
use crate::folder::{ModelFolder, ModelKind};
use crate::generator::{GeneratorHandle, GeneratorOptions};
use crate::grammar::GrammarCompiler;
use crate::tokenizer::TextTokenizer;
use crate::tokenizer::template::ChatTemplate;
use crate::tokenizer::tools::ToolFormat;

/// What callers ask about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name it is served under.
    pub name: String,
    /// Tokens of prompt and completion together.
    pub context_length: usize,
    /// Number of logits; valid token ids are below it.
    pub vocab: usize,
    /// SHA-256 of the folder's files; `None` for a model without files.
    pub digest: Option<String>,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LanguageOptions {
    /// Provider, threads, slots, context and memory.
    pub onnx: OnnxOptions,
    /// Queue and step limits. `eos` is filled in from the folder.
    pub generator: GeneratorOptions,
}

/// A model that generates text.
#[derive(Debug)]
pub struct LanguageModel {
    /// Its description.
    pub info: ModelInfo,
    /// Text to ids and back.
    pub tokenizer: Arc<TextTokenizer>,
    /// Messages to text; `None` for a model without one (completions only).
    pub template: Option<Arc<ChatTemplate>>,
    /// How it writes tool calls.
    pub tools: ToolFormat,
    /// Compiles constraints for its vocabulary.
    pub grammar: Arc<GrammarCompiler>,
    /// The device thread.
    pub generator: GeneratorHandle,
}

impl LanguageModel {
    /// Loads a folder of `onnxruntime_genai.models.builder`: checks it, builds the
    /// session on its device thread, runs the parity probe and the warm-up.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load(name: &str, dir: &Path, options: LanguageOptions) -> Result<Self, LoadError> {
        let folder = ModelFolder::open(dir)?;
        let ModelKind::Generative(config) = &folder.kind else {
            return Err(LoadError::Unsupported {
                model: name.to_owned(),
                reason: "the folder holds no generative model (genai_config.json)".to_owned(),
            });
        };
        let tokenizer = TextTokenizer::from_folder(dir)?;
        let template = ChatTemplate::from_folder(dir)?;
        let factory = onnx::language_model(dir, name, &options.onnx)?;
        let mut generator = options.generator;
        generator.eos.extend_from_slice(&config.eos);
        generator.eos.extend_from_slice(tokenizer.eos());
        generator.eos.sort_unstable();
        generator.eos.dedup();
        let generator = GeneratorHandle::start(name, factory, generator)?;
        Self::assemble(name, tokenizer, template, generator, Some(folder.digest()?))
    }

    /// A model without weights over any tokenizer: the next token is a hash of all
    /// that came before. For tests, demonstrations and measuring overhead.
    ///
    /// # Errors
    /// The tokenizer's vocabulary cannot carry grammars.
    pub fn fake(
        name: &str,
        tokenizer: TextTokenizer,
        template: Option<ChatTemplate>,
        backend: (FakeOptions, FakeControl),
        mut options: GeneratorOptions,
    ) -> Result<Self, LoadError> {
        options.eos.extend_from_slice(tokenizer.eos());
        let factory = FakeBackend::factory(backend.0, backend.1);
        let generator = GeneratorHandle::start(name, factory, options)?;
        Self::assemble(name, tokenizer, template, generator, None)
    }

    fn assemble(
        name: &str,
        tokenizer: TextTokenizer,
        template: Option<ChatTemplate>,
        generator: GeneratorHandle,
        digest: Option<String>,
    ) -> Result<Self, LoadError> {
        let capabilities = generator.capabilities();
        let info = ModelInfo {
            name: name.to_owned(),
            context_length: capabilities.capacity as usize,
            vocab: capabilities.vocab as usize,
            digest,
        };
        let source = template.as_ref().map_or("", ChatTemplate::source);
        Ok(Self {
            info,
            tools: ToolFormat::detect(source),
            grammar: Arc::new(GrammarCompiler::new(&tokenizer)?),
            tokenizer: Arc::new(tokenizer),
            template: template.map(Arc::new),
            generator,
        })
    }
}
