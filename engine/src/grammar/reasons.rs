//! llguidance's words, as clients are told them: one short line, without the grammar.

use super::GrammarError;

/// Characters of a reason that are told.
const MAX_REASON: usize = 160;

/// A valid grammar that the matcher gave up on while it was tried.
pub(super) fn stuck_at_once(error: GrammarError) -> GrammarError {
    match error {
        GrammarError::Stuck { reason } => too_complex(&reason),
        other => other,
    }
}

/// A valid grammar that the matcher gave up on.
fn too_complex(message: &str) -> GrammarError {
    GrammarError::TooComplex {
        reason: brief(message),
    }
}

/// One short line of llguidance's words, without the grammar that some of them quote.
fn brief(message: &str) -> String {
    let message = message.replace("<non-verbose/>", "");
    let lines = || {
        message
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    // A regular expression's error is in the last line, below a picture of the expression.
    let error = lines().find_map(|line| line.strip_prefix("error: "));
    let line = error.or_else(|| lines().next()).unwrap_or_default();
    if line.starts_with("panic") || line.is_empty() {
        return "the compiler gave up on it".to_owned();
    }
    match line.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// Sorts llguidance's messages into what the client can do about them.
pub(super) fn classify(message: &str) -> GrammarError {
    let keyword = |keyword: &str, reason: &str| GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        reason: reason.to_owned(),
    };
    let complex = |reason: &str| GrammarError::TooComplex {
        reason: reason.to_owned(),
    };
    let invalid = |reason: &str| GrammarError::Invalid {
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
    if message.contains("min/maxProperties only supported") {
        return keyword("minProperties", "not beside optional properties");
    }
    if message.contains("Unable to determine if regex is empty") {
        return complex("`pattern`, `format` and lengths of a string together");
    }
    if message.contains("Regex is empty") {
        return invalid("no string fits `pattern`, `format` and lengths together");
    }
    if message.starts_with("panic") {
        return complex("the compiler gave up on it");
    }
    let limits = [
        "too large",
        "too complex",
        "fuel",
        "limit",
        "exceeded",
        "too many",
    ];
    match limits.iter().any(|l| message.contains(l)) {
        true => too_complex(message),
        false => invalid(&brief(message)),
    }
}
