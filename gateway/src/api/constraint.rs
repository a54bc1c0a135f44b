//! What the output must match: `response_format`, and vLLM's `guided_*` and
//! `structured_outputs`.

use serde_json::Value;
use sluice_engine::grammar::GrammarSpec;
use sluice_engine::tokenizer::tools::valid_tool_name;

use super::fields::{self, Fields};
use super::peers;
use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// What the output must match, and the field that says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constraint {
    /// What the client called it.
    pub(crate) field: &'static str,
    pub(crate) spec: GrammarSpec,
}

/// Takes the one constraint of a request; more than one is refused.
pub(crate) fn take(request: &mut Fields) -> Result<Option<Constraint>, ApiError> {
    let mut found: Option<Constraint> = None;
    let named = |field, spec: Option<GrammarSpec>| spec.map(|spec| Constraint { field, spec });
    let candidates = [
        named("response_format", take_response_format(request)?),
        named("guided_json", take_json(request, "guided_json")?),
        named("guided_regex", take_regex(request, "guided_regex")?),
        named("guided_choice", take_choice(request, "guided_choice")?),
        named("guided_grammar", take_lark(request, "guided_grammar")?),
        take_structured(request)?,
    ];
    for constraint in candidates.into_iter().flatten() {
        if let Some(first) = found {
            return Err(both(first.field, constraint.field));
        }
        found = Some(constraint);
    }
    Ok(found)
}

/// `{"type": "text" | "json_object" | "json_schema", "json_schema": {name, schema, strict}}`.
fn take_response_format(request: &mut Fields) -> Result<Option<GrammarSpec>, ApiError> {
    #[derive(Clone, Copy)]
    enum Kind {
        Text,
        Object,
        Schema,
    }
    let Some(mut format) = request.object("response_format")? else {
        return Ok(None);
    };
    let kinds = [
        ("text", Kind::Text),
        ("json_object", Kind::Object),
        ("json_schema", Kind::Schema),
    ];
    match format.choice("type", &kinds)? {
        None => Err(ApiError::missing(format.path_of("type"))),
        Some(Kind::Text) => Ok(None),
        Some(Kind::Object) => Ok(Some(GrammarSpec::JsonObject)),
        Some(Kind::Schema) => {
            let Some(mut named) = format.object("json_schema")? else {
                return Err(ApiError::missing(format.path_of("json_schema")));
            };
            let name = named.required_string("name")?;
            check_name(&named.path_of("name"), &name)?;
            named.string("description")?;
            // The schema binds whether or not `strict` asks for it.
            named.boolean("strict")?;
            match named.object("schema")? {
                Some(schema) => Ok(Some(GrammarSpec::JsonSchema(Value::Object(
                    schema.into_map(),
                )))),
                // OpenAI takes a schema without a schema for any object.
                None => Ok(Some(GrammarSpec::JsonObject)),
            }
        }
    }
}

/// OpenAI's rule for the names of functions and schemas.
pub(crate) fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    if valid_tool_name(name) {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        path.to_owned(),
        format!(
            "Invalid '{path}': expected a string of 1 to 64 characters out of \
             letters, digits, '_' and '-'."
        ),
    ))
}

/// A schema as an object or as a string that holds one.
fn take_json(request: &mut Fields, key: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let path = request.path_of(key);
    let schema = match request.take(key) {
        None => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
            ApiError::invalid_value(path.clone(), format!("Invalid '{path}': no JSON: {error}"))
        })?,
        Some(other) => other,
    };
    match schema {
        object @ (Value::Object(_) | Value::Bool(_)) => Ok(Some(GrammarSpec::JsonSchema(object))),
        other => Err(fields::wrong_type(path, "a JSON schema", &other)),
    }
}

fn take_regex(request: &mut Fields, key: &str) -> Result<Option<GrammarSpec>, ApiError> {
    Ok(nonempty(request, key)?.map(GrammarSpec::Regex))
}

fn take_lark(request: &mut Fields, key: &str) -> Result<Option<GrammarSpec>, ApiError> {
    Ok(nonempty(request, key)?.map(GrammarSpec::Lark))
}

fn nonempty(request: &mut Fields, key: &str) -> Result<Option<String>, ApiError> {
    match request.string(key)? {
        Some(text) if text.is_empty() => Err(fields::empty_string(request.path_of(key))),
        found => Ok(found),
    }
}

fn take_choice(request: &mut Fields, key: &str) -> Result<Option<GrammarSpec>, ApiError> {
    let path = request.path_of(key);
    let Some(items) = request.array(key)? else {
        return Ok(None);
    };
    if items.is_empty() {
        return Err(fields::empty_array(path));
    }
    let read = |(index, item)| match item {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::String(_) => Err(fields::empty_string(format!("{path}[{index}]"))),
        other => Err(fields::wrong_type(
            format!("{path}[{index}]"),
            "a string",
            &other,
        )),
    };
    let choices: Result<Vec<String>, ApiError> = items.into_iter().enumerate().map(read).collect();
    choices.map(|choices| Some(GrammarSpec::Choice(choices)))
}

/// vLLM's newer form: an object with one of `json`, `regex`, `choice`, `grammar`,
/// `json_object`.
fn take_structured(request: &mut Fields) -> Result<Option<Constraint>, ApiError> {
    let Some(mut inner) = request.object("structured_outputs")? else {
        return Ok(None);
    };
    let object = inner.boolean("json_object")?.unwrap_or(false);
    let named = |field, spec: Option<GrammarSpec>| spec.map(|spec| Constraint { field, spec });
    let candidates = [
        named("structured_outputs.json", take_json(&mut inner, "json")?),
        named("structured_outputs.regex", take_regex(&mut inner, "regex")?),
        named(
            "structured_outputs.choice",
            take_choice(&mut inner, "choice")?,
        ),
        named(
            "structured_outputs.grammar",
            take_lark(&mut inner, "grammar")?,
        ),
        named(
            "structured_outputs.json_object",
            object.then_some(GrammarSpec::JsonObject),
        ),
    ];
    peers::check(&inner, peers::STRUCTURED_OUTPUTS)?;
    let mut found = candidates.into_iter().flatten();
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(ApiError::invalid_value(
            "structured_outputs",
            "Invalid 'structured_outputs': give one of 'json', 'regex', 'choice', 'grammar' \
             and 'json_object', not several.",
        )),
    }
}

fn both(first: &str, second: &'static str) -> ApiError {
    ApiError::invalid_value(
        second,
        format!("'{first}' and '{second}' exclude each other: the output can follow one of them."),
    )
}
