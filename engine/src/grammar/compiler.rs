//! Compiling grammars for one tokenizer, with a bounded cache.

use std::sync::Arc;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::{JsonCompileOptions, ParserFactory, TokenParser};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::growth::{Bounds, Form, Growth, TokenClasses};
use super::narrow::Patterns;
use super::pattern::bound_digits;
use super::reasons::{classify, stuck_at_once};
use super::schema::prepare;
use super::{CallsGrammar, EmbeddedSchema, Grammar, GrammarError, GrammarSpec, Vocabulary};
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
    /// How far what has no bound of its own may grow.
    pub bounds: Bounds,
}

impl Default for CompilerOptions {
    fn default() -> Self {
        Self {
            max_source_bytes: 256 * 1024,
            cache_entries: 64,
            cache_source_bytes: 2 * 1024 * 1024,
            bounds: Bounds::default(),
        }
    }
}

/// Between two JSON lexemes at most one blank: what models write after `:` and
/// `,`, but never the endless run of newlines that an unsure model falls into.
const WHITESPACE: &str = r"[\x20\x0A\x09]";

/// Stack of a compilation. The compiler recurses over what clients write, and a stack that overflows ends the process;
/// of this one only what is used is ever memory.
const STACK: usize = 64 << 20;

/// Brackets of a pattern or grammar within each other.
const MAX_NESTING: usize = 250;

/// What finding the bytes with which an output may begin may cost, in units of some hundred nanoseconds: enough for every
/// `multipleOf` of up to 50,000.
const BEGINNINGS: u64 = 6_000_000;

/// Masks that are computed with the compilation.
const TRIED_STEPS: usize = 4;

/// Compiles grammars for one tokenizer. One per model.
///
/// Compilation is CPU work of up to some tens of milliseconds (llguidance's fuel
/// limits bound it): run it off the async threads and off the device thread.
pub struct GrammarCompiler {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
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
        let (trie, classes) = vocabulary(tokenizer);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env)
            .map_err(|e| LoadError::Runtime(format!("grammar tables: {e}")))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: 50_000,
            max_grammar_size: 200_000,
            max_items_in_row: 10_000,
            // Errors reach logs and clients; they must not carry model output.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory,
            vocabulary: Arc::new(Vocabulary { env, classes }),
            options,
            cache: Mutex::new(Cache::default()),
        })
    }

    /// Compiles `spec`, or returns the cached result.
    ///
    /// # Errors
    /// [`GrammarError`] names the construct that is wrong, unsupported or too large.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let source = self.sized(identity(spec))?;
        let key: [u8; 32] = Sha256::digest(source.as_bytes()).into();
        if let Some(grammar) = self.cache.lock().get(&key) {
            return Ok(grammar);
        }
        let grammar = on_a_stack(|| self.compile_here(spec))?;
        self.cache
            .lock()
            .insert(key, grammar.clone(), source.len(), &self.options);
        Ok(grammar)
    }

    /// On this thread.
    fn compile_here(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let compiled = self.build(spec, Patterns::Bounded);
        let (GrammarSpec::JsonSchema(_) | GrammarSpec::Calls(_)) = spec else {
            return compiled;
        };
        match compiled {
            // A pattern may be too much only together with a length that its schema did not ask for.
            Err(GrammarError::TooComplex { .. }) => self.build(spec, Patterns::AsTheyAre),
            compiled => compiled,
        }
    }

    fn build(&self, spec: &GrammarSpec, patterns: Patterns) -> Result<Grammar, GrammarError> {
        let (top, form) = self.top_level(spec, patterns)?;
        let parser = self.parser(top)?;
        let matcher = llguidance::Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(classify(&error));
        }
        let grammar = Grammar {
            prototype: Arc::new(matcher),
            vocabulary: Arc::clone(&self.vocabulary),
            growth: Growth::new(form, self.options.bounds),
        };
        self.try_out(&grammar)?;
        Ok(grammar)
    }

    /// llguidance looks for the bytes with which an output may begin before it counts what it spends, and that alone can
    /// take minutes and gigabytes: which of a hundred million remainders lead to none. So it is done here first,
    /// within what a compilation may spend.
    fn parser(&self, top: TopLevelGrammar) -> Result<TokenParser, GrammarError> {
        let mut limits = self.factory.limits().clone();
        let init = GrammarInit::Serialized(top);
        let env = Some(self.vocabulary.env.clone());
        let (rules, lexemes) = init.to_internal(env, limits.clone()).map_err(refused)?;
        let mut lexer = lexemes.to_regex_vec(&mut limits).map_err(refused)?;
        lexer.set_fuel(BEGINNINGS);
        let start = lexer.initial_state(&lexemes.all_lexemes());
        for byte in 0..=u8::MAX {
            lexer.transition(start, byte);
            if lexer.has_error() {
                return Err(GrammarError::TooComplex {
                    reason: "it takes too long to find how an output may begin".to_owned(),
                });
            }
        }
        self.factory
            .create_parser_from_init_default(GrammarInit::Internal(rules, lexemes))
            .map_err(refused)
    }

    /// The first masks are where a grammar that is too much for the lexer shows. Tried here, it is a
    /// refusal before anything was begun. On a copy: what the lexer has made of it stays small in the
    /// prototype, of which each sequence gets a copy.
    fn try_out(&self, grammar: &Grammar) -> Result<(), GrammarError> {
        let ends = self.vocabulary.env.tok_trie().eos_tokens();
        let mut matcher = grammar.matcher();
        for step in 0..TRIED_STEPS {
            if let Err(error) = matcher.mask() {
                return Err(stuck_at_once(error));
            }
            let allowed = matcher.mask.iter().find(|id| !ends.contains(id));
            match allowed {
                Some(id) => matcher.accept(id).map_err(stuck_at_once)?,
                None if step == 0 && matcher.mask.is_zero() => {
                    return Err(GrammarError::Invalid {
                        reason: "nothing fits it".to_owned(),
                    });
                }
                None => break,
            }
            if matcher.is_finished() {
                break;
            }
        }
        Ok(())
    }

    /// Grammars in the cache.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.lock().entries.len()
    }

    fn sized(&self, source: String) -> Result<String, GrammarError> {
        let limit = self.options.max_source_bytes;
        if source.len() > limit {
            return Err(GrammarError::TooComplex {
                reason: format!("{} bytes, at most {limit} are compiled", source.len()),
            });
        }
        Ok(source)
    }

    /// The grammar as llguidance takes it, and what its output is.
    fn top_level(
        &self,
        spec: &GrammarSpec,
        patterns: Patterns,
    ) -> Result<(TopLevelGrammar, Form), GrammarError> {
        let bounds = &self.options.bounds;
        let text = |bytes| Form::Text { bytes };
        Ok(match spec {
            GrammarSpec::JsonObject => {
                let schema = with_policy(json!({"type": "object"}), false);
                (TopLevelGrammar::from_json_schema(schema), Form::Json)
            }
            GrammarSpec::JsonSchema(schema) => {
                let schema = with_policy(prepare(schema, bounds, patterns)?, false);
                (TopLevelGrammar::from_json_schema(schema), Form::Json)
            }
            GrammarSpec::Lark(source) => {
                check_nesting(source)?;
                let top = TopLevelGrammar::from_lark(source.clone());
                (top, text(bounds.bytes))
            }
            GrammarSpec::Regex(pattern) => {
                check_nesting(pattern)?;
                let pattern = bound_digits(pattern, bounds.number_chars);
                let top = TopLevelGrammar::from_regex(&pattern);
                (top, text(bounds.string_bytes))
            }
            GrammarSpec::Choice(choices) => {
                let top = TopLevelGrammar::from_lark(choice(choices)?);
                (top, text(bounds.bytes))
            }
            GrammarSpec::Calls(calls) => {
                let source = calls_source(calls, bounds, patterns)?;
                (TopLevelGrammar::from_lark(source), calls.form)
            }
        })
    }
}

/// The text that tells a grammar from all others.
fn identity(spec: &GrammarSpec) -> String {
    match spec {
        GrammarSpec::JsonObject => "object:".to_owned(),
        GrammarSpec::JsonSchema(schema) => format!("json:{schema}"),
        GrammarSpec::Lark(text) => format!("lark:{text}"),
        GrammarSpec::Regex(pattern) => format!("regex:{pattern}"),
        GrammarSpec::Choice(choices) => format!("choice:{choices:?}"),
        GrammarSpec::Calls(calls) => {
            let mut text = format!("calls:{:?}:{}", calls.form, calls.rules);
            for embedded in &calls.schemas {
                let EmbeddedSchema {
                    rule,
                    schema,
                    call,
                    lenient,
                } = embedded;
                text.push_str(&format!("\n{rule}:{call:?}:{lenient}:{schema}"));
            }
            text
        }
    }
}

/// What the compiler says, in its causes too.
fn refused(error: impl std::fmt::Display) -> GrammarError {
    classify(&format!("{error:#}"))
}

/// Runs a compilation where it may recurse. One that panics is one that cannot be had.
fn on_a_stack<T: Send>(
    compile: impl FnOnce() -> Result<T, GrammarError> + Send,
) -> Result<T, GrammarError> {
    let gave_up = || GrammarError::TooComplex {
        reason: "the compiler gave up on it".to_owned(),
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, compile);
        let thread = thread.map_err(|_| gave_up())?;
        thread.join().map_err(|_| gave_up())?
    })
}

/// Refuses brackets that are nested deeper than parsers can follow.
fn check_nesting(source: &str) -> Result<(), GrammarError> {
    let (mut depth, mut escaped) = (0_usize, false);
    for byte in source.bytes() {
        let literal = escaped;
        escaped = byte == b'\\' && !literal;
        match byte {
            _ if literal => {}
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(GrammarError::TooComplex {
                reason: format!("brackets nested deeper than {MAX_NESTING}"),
            });
        }
    }
    Ok(())
}

/// The whole of a grammar of calls.
fn calls_source(
    calls: &CallsGrammar,
    bounds: &Bounds,
    patterns: Patterns,
) -> Result<String, GrammarError> {
    let mut source = calls.rules.clone();
    for embedded in &calls.schemas {
        let mut schema = prepare(&embedded.schema, bounds, patterns)?;
        if let Some(call) = &embedded.call {
            let mut definitions = None;
            if let Some(arguments) = schema.as_object_mut() {
                definitions = arguments.shift_remove("$defs");
                arguments.shift_remove("$schema");
                // Whatever the schema says, arguments are an object.
                arguments.insert("type".to_owned(), json!("object"));
            }
            let mut whole = json!({
                "type": "object",
                "properties": {"name": {"const": call.name}, call.key: schema},
                "required": ["name", call.key],
                "additionalProperties": false,
            });
            if let Some(definitions) = definitions {
                whole["$defs"] = definitions;
            }
            schema = whole;
        }
        let schema = with_policy(schema, embedded.lenient);
        source.push_str(&format!("{}: %json {schema}\n", embedded.rule));
    }
    Ok(source)
}

/// Fixes llguidance's options for a schema, whatever `x-guidance` it brought.
/// `lenient`: keywords that cannot be enforced are ignored instead of refused.
fn with_policy(mut schema: Value, lenient: bool) -> Value {
    if schema.is_object() {
        JsonCompileOptions {
            whitespace_pattern: Some(WHITESPACE.to_owned()),
            lenient,
            ..JsonCompileOptions::default()
        }
        .apply_to(&mut schema);
    }
    schema
}

fn choice(choices: &[String]) -> Result<String, GrammarError> {
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        return Err(GrammarError::Invalid {
            reason: "a choice needs at least one string, none of them empty".to_owned(),
        });
    }
    // One terminal: as alternatives of a rule they would all be items of the parser at once.
    let literals: Vec<String> = choices.iter().map(|c| lark_literal(c)).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}", literals.join(" | ")))
}

/// `text` as a Lark string literal, which has JSON's escapes.
fn lark_literal(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// The vocabulary as llguidance wants it: special tokens behind a `0xFF` marker,
/// so that no text of the grammar can match them by accident.
///
/// The marks of tool calls are text even where they are special tokens: grammars
/// of tool calls spell them out.
fn vocabulary(tokenizer: &TextTokenizer) -> (TokTrie, TokenClasses) {
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
    let classes = TokenClasses::of(&words, &eos);
    let trie = TokTrie::from(&TokRxInfo::new(size, eos[0]), &words).with_eos_tokens(&eos);
    (trie, classes)
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
