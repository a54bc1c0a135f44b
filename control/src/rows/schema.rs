//! A dataset version's `schema`: a JSON Schema of one row, as far as columns and their types go.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// What rows are held against, and which columns were seen.
#[derive(Debug, Default)]
pub struct RowSchema {
    /// Columns with the types that they may have; empty for any.
    types: Vec<(String, Vec<String>)>,
    required: Vec<String>,
    seen: HashSet<String>,
    rows: u64,
}

/// The types of JSON Schema.
const TYPES: [&str; 7] = [
    "string", "number", "integer", "boolean", "object", "array", "null",
];

impl RowSchema {
    /// `None` for an empty one.
    ///
    /// # Errors
    /// The path below the schema, and what would be right.
    pub fn read(schema: &Value) -> Result<Option<Self>, (String, String)> {
        let Some(fields) = schema.as_object().filter(|fields| !fields.is_empty()) else {
            return Ok(None);
        };
        let wrong = |path: &str, message: &str| Err((path.to_owned(), message.to_owned()));
        if !fields.contains_key("properties") && !fields.contains_key("required") {
            return wrong(
                "",
                "should be a JSON Schema of one row, such as {\"properties\": {\"text\": {\"type\": \"string\"}}}",
            );
        }
        let required = match fields.get("required") {
            None => Vec::new(),
            Some(Value::Array(names)) if names.iter().all(Value::is_string) => names
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(_) => return wrong("required", "should be a list of columns' names"),
        };
        let mut types = Vec::new();
        let empty = Map::new();
        let properties = match fields.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return wrong("properties", "should be an object of columns"),
        };
        for (name, column) in properties {
            let words = match &column["type"] {
                Value::Null => Vec::new(),
                Value::String(word) => vec![word.clone()],
                Value::Array(words) => words
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                _ => vec![String::new()],
            };
            if words.iter().any(|word| !TYPES.contains(&word.as_str())) {
                let path = format!("properties.{name}.type");
                return wrong(&path, &format!("should be one of {}", TYPES.join(", ")));
            }
            types.push((name.clone(), words));
        }
        Ok(Some(Self {
            types,
            required,
            ..Self::default()
        }))
    }

    /// Looks at one row.
    pub(super) fn look(&mut self, number: u64, line: &[u8]) -> Result<(), String> {
        let row: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|error| format!("row {number} is no JSON object: {error}"))?;
        self.rows += 1;
        if let Some(missing) = self.required.iter().find(|name| !row.contains_key(*name)) {
            return Err(format!(
                "required names {missing}, which row {number} has not"
            ));
        }
        for (name, types) in &self.types {
            let Some(value) = row.get(name) else { continue };
            if !self.seen.contains(name) {
                self.seen.insert(name.clone());
            }
            if !types.is_empty() && !types.iter().any(|word| is(word, value)) {
                return Err(format!(
                    "properties.{name}.type is {}, and row {number} has {}",
                    types.join(" or "),
                    word_of(value)
                ));
            }
        }
        Ok(())
    }

    /// Whether each column that it names was there.
    ///
    /// # Errors
    /// Names one that no row has.
    pub fn finish(&self) -> Result<(), String> {
        let unseen = self
            .types
            .iter()
            .find(|(name, _)| !self.seen.contains(name));
        match unseen.filter(|_| self.rows > 0) {
            Some((name, _)) => Err(format!("properties names {name}, which no row has")),
            None => Ok(()),
        }
    }
}

fn is(word: &str, value: &Value) -> bool {
    match (word, value) {
        ("integer", Value::Number(number)) => {
            number.is_i64()
                || number.is_u64()
                || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        ("number", Value::Number(_)) => true,
        (word, value) => word == word_of(value),
    }
}

fn word_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
