//! What is checked of a JSON schema before it is compiled.

use serde_json::Value;

use super::GrammarError;

/// Deeper schemas are refused: the compiler recurses over them.
const MAX_DEPTH: usize = 64;
/// Objects, arrays and scalars of the schema document, together.
const MAX_NODES: usize = 20_000;
/// Largest `minItems`, `maxItems`, `minLength`, …: each unrolls that many states.
const MAX_REPEAT: u64 = 10_000;

const REPEATS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

/// Refuses schemas that are not objects, or too large to compile in bounded time.
///
/// # Errors
/// [`GrammarError::Invalid`] or [`GrammarError::TooComplex`].
pub fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    if !schema.is_object() {
        return Err(GrammarError::Invalid {
            reason: "the schema must be a JSON object".to_owned(),
        });
    }
    let mut nodes = 0;
    visit(schema, 0, &mut nodes)?;
    check_references(schema, schema)
}

/// Refuses `$ref`s that lead back to themselves without anything between: no value
/// fits such a schema. (Recursion through properties or items is fine.)
fn check_references(value: &Value, root: &Value) -> Result<(), GrammarError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|v| check_references(v, root)),
        Value::Object(fields) => {
            let mut seen = Vec::new();
            let mut here = value;
            while let Some(path) = reference(here) {
                if seen.contains(&path) {
                    return Err(GrammarError::Invalid {
                        reason: format!("`$ref` \"#{path}\" leads back to itself"),
                    });
                }
                if seen.len() >= MAX_DEPTH {
                    return Err(too_complex(format!("a chain of over {MAX_DEPTH} `$ref`s")));
                }
                seen.push(path);
                // What leads nowhere is refused by the compiler, which names it.
                let Some(next) = root.pointer(path) else {
                    break;
                };
                here = next;
            }
            fields.values().try_for_each(|v| check_references(v, root))
        }
        _ => Ok(()),
    }
}

/// The JSON pointer of a reference within the document.
fn reference(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()?.strip_prefix('#')
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
        Value::Object(fields) => fields.iter().try_for_each(|(key, v)| {
            if REPEATS.contains(&key.as_str()) && v.as_u64().is_some_and(|n| n > MAX_REPEAT) {
                return Err(too_complex(format!("`{key}` above {MAX_REPEAT}")));
            }
            visit(v, depth + 1, nodes)
        }),
        _ => Ok(()),
    }
}

fn too_complex(reason: String) -> GrammarError {
    GrammarError::TooComplex { reason }
}
