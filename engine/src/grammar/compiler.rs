//! Compiling grammars for one tokenizer, with a bounded cache.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{JsonCompileOptions, ParserFactory};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::narrow::narrow;
use super::schema::check_schema;
use super::{Grammar, GrammarError, GrammarSpec};
use crate::error::LoadError;
use crate::tokenizer::TextTokenizer;

/// Bounds of compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerOptions {
    /// Bytes of a grammar's source.
    pub max_source_bytes: usize,
    /// Compiled grammars kept.
    pub cache_entries: usize,
    /// Bytes of the sources of the grammars kept, together.
    pub cache_source_bytes: usize,
}

impl Default for CompilerOptions {
    fn default() -> Self {
        Self {
            max_source_bytes: 256 * 1024,
            cache_entries: 64,
            cache_source_bytes: 2 * 1024 * 1024,
        }
    }
}

/// Between two JSON lexemes at most one blank: what models write after `:` and
/// `,`, but never the endless run of newlines that an unsure model falls into.
const WHITESPACE: &str = r"[\x20\x0A\x09]";

/// Compiles grammars for one tokenizer. One per model.
///
/// Compilation is CPU work of up to some tens of milliseconds (llguidance's fuel
/// limits bound it): run it off the async threads and off the device thread.
pub struct GrammarCompiler {
    factory: ParserFactory,
    options: CompilerOptions,
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// Builds the byte trie of the vocabulary.
    ///
    /// # Errors
    /// The vocabulary is not one that llguidance can use.
    pub fn new(tokenizer: &TextTokenizer) -> Result<Self, LoadError> {
        Self::with_options(tokenizer, CompilerOptions::default())
    }

    /// The same with explicit bounds.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(
        tokenizer: &TextTokenizer,
        options: CompilerOptions,
    ) -> Result<Self, LoadError> {
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie(tokenizer)));
        let mut factory = ParserFactory::new_simple(&env)
            .map_err(|e| LoadError::Runtime(format!("grammar tables: {e}")))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: 50_000,
            max_grammar_size: 200_000,
            // Errors reach logs and clients; they must not carry model output.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory,
            options,
            cache: Mutex::new(Cache::default()),
        })
    }

    /// Compiles `spec`, or returns the cached result.
    ///
    /// # Errors
    /// [`GrammarError`] names the construct that is wrong, unsupported or too large.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let (source, top) = self.source(spec)?;
        let key: [u8; 32] = Sha256::digest(source.as_bytes()).into();
        if let Some(grammar) = self.cache.lock().get(&key) {
            return Ok(grammar);
        }
        let parser = self
            .factory
            .create_parser(top)
            .map_err(|e| classify(&format!("{e:#}")))?;
        let matcher = llguidance::Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(classify(&error));
        }
        // The first mask is where a grammar that is too much for the lexer shows. Tried here, it is
        // a refusal before anything was begun. On a copy: what the lexer has made of it stays small
        // in the prototype, of which each sequence gets a copy.
        matcher
            .deep_clone()
            .compute_mask_or_eos()
            .map_err(|e| too_complex(&e.to_string()))?;
        let grammar = Grammar {
            prototype: Arc::new(matcher),
        };
        self.cache
            .lock()
            .insert(key, grammar.clone(), source.len(), &self.options);
        Ok(grammar)
    }

    /// Grammars in the cache.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.lock().entries.len()
    }

    /// The text that identifies the grammar, and the grammar as llguidance takes it.
    fn source(&self, spec: &GrammarSpec) -> Result<(String, TopLevelGrammar), GrammarError> {
        let sized = |source: String| {
            if source.len() > self.options.max_source_bytes {
                return Err(GrammarError::TooComplex {
                    reason: format!(
                        "{} bytes, at most {} are compiled",
                        source.len(),
                        self.options.max_source_bytes
                    ),
                });
            }
            Ok(source)
        };
        match spec {
            GrammarSpec::JsonObject => Ok(json_schema(json!({"type": "object"}))),
            GrammarSpec::JsonSchema(schema) => {
                sized(schema.to_string())?;
                check_schema(schema)?;
                Ok(json_schema(schema.clone()))
            }
            GrammarSpec::Lark(text) => {
                let text = sized(text.clone())?;
                let top = TopLevelGrammar::from_lark(text.clone());
                Ok((format!("lark:{text}"), top))
            }
            GrammarSpec::Regex(pattern) => {
                let pattern = sized(pattern.clone())?;
                let top = TopLevelGrammar::from_regex(&pattern);
                Ok((format!("regex:{pattern}"), top))
            }
            GrammarSpec::Choice(choices) => {
                let text = sized(choice(choices)?)?;
                let top = TopLevelGrammar::from_lark(text.clone());
                Ok((format!("choice:{text}"), top))
            }
        }
    }
}

fn json_schema(mut schema: Value) -> (String, TopLevelGrammar) {
    narrow(&mut schema);
    whitespace_policy(&mut schema, false);
    let source = format!("json:{schema}");
    (source, TopLevelGrammar::from_json_schema(schema))
}

/// Fixes llguidance's options for a schema, whatever `x-guidance` it brought.
/// `lenient`: keywords that cannot be enforced are ignored instead of refused.
pub(crate) fn whitespace_policy(schema: &mut Value, lenient: bool) {
    if schema.is_object() {
        JsonCompileOptions {
            whitespace_pattern: Some(WHITESPACE.to_owned()),
            lenient,
            ..JsonCompileOptions::default()
        }
        .apply_to(schema);
    }
}

fn choice(choices: &[String]) -> Result<String, GrammarError> {
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        return Err(GrammarError::Invalid {
            reason: "a choice needs at least one string, none of them empty".to_owned(),
        });
    }
    let literals: Vec<String> = choices.iter().map(|c| lark_literal(c)).collect();
    Ok(format!("start: {}", literals.join(" | ")))
}

/// `text` as a Lark string literal, which has JSON's escapes.
fn lark_literal(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// A valid grammar that the matcher gave up on.
fn too_complex(message: &str) -> GrammarError {
    let message = message.replace("<non-verbose/>", "");
    let reason = message.lines().next().unwrap_or_default().trim();
    GrammarError::TooComplex {
        reason: reason.to_owned(),
    }
}

/// Sorts llguidance's messages into what the client can do about them.
fn classify(message: &str) -> GrammarError {
    let message = message.replace("<non-verbose/>", "");
    let message = message.trim();
    let keyword = |keyword: &str, reason: &str| GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        reason: reason.to_owned(),
    };
    if let Some((_, keys)) = message.split_once("Unimplemented keys: ") {
        let keys = keys.lines().next().unwrap_or_default();
        let first = keys.split('"').nth(1).unwrap_or(keys);
        return keyword(first, "this schema keyword cannot be enforced");
    }
    if message.contains("oneOf constraints are not supported") {
        return keyword("oneOf", "its branches overlap; use `anyOf`");
    }
    let limits = ["too large", "too complex", "fuel", "limit", "exceeded"];
    if limits.iter().any(|l| message.contains(l)) {
        return GrammarError::TooComplex {
            reason: message.to_owned(),
        };
    }
    GrammarError::Invalid {
        reason: message.to_owned(),
    }
}

/// The vocabulary as llguidance wants it: special tokens behind a `0xFF` marker,
/// so that no text of the grammar can match them by accident.
///
/// The marks of tool calls are text even where they are special tokens: grammars
/// of tool calls spell them out.
fn trie(tokenizer: &TextTokenizer) -> TokTrie {
    let mut words: Vec<Vec<u8>> = (0..tokenizer.vocab_size())
        .map(|id| u32::try_from(id).unwrap_or(u32::MAX))
        .map(|id| {
            let control = tokenizer.is_special(id) && !tokenizer.tool_marks().contains(&id);
            if control || tokenizer.eos().contains(&id) {
                let mut marked = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                marked.extend(tokenizer.spelling(id).unwrap_or_default().bytes());
                marked
            } else {
                tokenizer.token_bytes(id)
            }
        })
        .collect();
    let mut eos: Vec<u32> = tokenizer.eos().to_vec();
    eos.retain(|&id| (id as usize) < words.len());
    if eos.is_empty() {
        // A model without an end token stops where nothing may follow; this one
        // lies beyond the logits and can never be drawn.
        eos.push(u32::try_from(words.len()).unwrap_or(u32::MAX));
        words.push(b"\xFF<|no_eos|>".to_vec());
    }
    let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
    TokTrie::from(&TokRxInfo::new(size, eos[0]), &words).with_eos_tokens(&eos)
}

/// Least recently used first; a scan of 64 entries costs less than a hash map.
#[derive(Default)]
struct Cache {
    entries: Vec<CacheEntry>,
}

struct CacheEntry {
    key: [u8; 32],
    grammar: Grammar,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, key: &[u8; 32]) -> Option<Grammar> {
        let at = self.entries.iter().position(|e| e.key == *key)?;
        let entry = self.entries.remove(at);
        let grammar = entry.grammar.clone();
        self.entries.push(entry);
        Some(grammar)
    }

    fn insert(&mut self, key: [u8; 32], grammar: Grammar, bytes: usize, limits: &CompilerOptions) {
        self.entries.retain(|e| e.key != key);
        self.entries.push(CacheEntry {
            key,
            grammar,
            bytes,
        });
        let mut total: usize = self.entries.iter().map(|e| e.bytes).sum();
        while self.entries.len() > limits.cache_entries || total > limits.cache_source_bytes {
            if self.entries.is_empty() {
                break;
            }
            total -= self.entries.remove(0).bytes;
        }
    }
}
