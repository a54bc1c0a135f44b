//! What becomes of a JSON schema before it is compiled: checked, its references resolved, narrowed.

use serde_json::Value;

use super::GrammarError;
use super::growth::Bounds;
use super::narrow::{Patterns, narrow};
use super::numbers;
use super::references::resolve;

/// Deeper schemas are refused: the compiler recurses over them.
const MAX_DEPTH: usize = 64;
/// Objects, arrays and scalars of the schema document, together.
const MAX_NODES: usize = 20_000;

/// The schema as it is compiled: every value of it is one of the client's, and ends.
///
/// # Errors
/// [`GrammarError::Invalid`] or [`GrammarError::TooComplex`].
pub(super) fn prepare(
    schema: &Value,
    bounds: &Bounds,
    patterns: Patterns,
) -> Result<Value, GrammarError> {
    check(schema)?;
    let mut schema = resolve(schema, bounds.depth)?;
    narrow(&mut schema, bounds, patterns)?;
    numbers::check_merged(&schema)?;
    Ok(schema)
}

/// Refuses what is no schema, or too large to compile in bounded time.
fn check(schema: &Value) -> Result<(), GrammarError> {
    if !schema.is_object() {
        return Err(GrammarError::Invalid {
            reason: "the schema must be a JSON object".to_owned(),
        });
    }
    let mut nodes = 0;
    visit(schema, 0, &mut nodes)
}

fn visit(value: &Value, depth: usize, nodes: &mut usize) -> Result<(), GrammarError> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return Err(too_complex(format!("more than {MAX_NODES} schema nodes")));
    }
    if depth > MAX_DEPTH {
        return Err(too_complex(format!("nested deeper than {MAX_DEPTH}")));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|v| visit(v, depth + 1, nodes)),
        Value::Object(fields) => fields.values().try_for_each(|v| visit(v, depth + 1, nodes)),
        _ => Ok(()),
    }
}

fn too_complex(reason: String) -> GrammarError {
    GrammarError::TooComplex { reason }
}
