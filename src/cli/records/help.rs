//! The fields of a verb for its `--help`, from the document that describes the API: what the server takes and what the
//! command line says of it are one text.

use std::fmt::Write as _;

use serde_json::Value;

/// Where the API's paths begin.
const BASE: &str = "/api/v1";
/// A line of help; narrower terminals wrap it themselves.
const WIDTH: usize = 80;
const INDENT: &str = "      ";
/// What lists take beside their filters, for which the command line has words of its own.
const PAGING: [&str; 2] = ["limit", "cursor"];

/// The API's own description.
#[derive(Debug)]
pub(super) struct Reference(Value);

impl Reference {
    pub(super) fn load() -> Self {
        Self(sluice_control::api::openapi())
    }

    /// The fields that an operation takes in its body; `None` where it takes none.
    pub(super) fn body(&self, method: &str, path: &str) -> Option<String> {
        let operation = self.operation(method, path)?;
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let schema = self.resolved(schema);
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let fields: Vec<Field<'_>> = schema["properties"]
            .as_object()?
            .iter()
            .map(|(name, schema)| Field {
                name,
                schema,
                needed: required.iter().any(|it| it == name),
            })
            .collect();
        let title = match method {
            "PATCH" => "Fields, each as FIELD=VALUE; what is not named stays as it is:",
            _ => "Fields, each as FIELD=VALUE:",
        };
        (!fields.is_empty()).then(|| self.listed(title, &fields))
    }

    /// What a list may be asked for.
    pub(super) fn filters(&self, path: &str) -> Option<String> {
        let operation = self.operation("GET", path)?;
        let fields: Vec<Field<'_>> = operation["parameters"]
            .as_array()?
            .iter()
            .filter(|it| it["in"] == "query")
            .filter_map(|it| {
                Some(Field {
                    name: it["name"].as_str()?,
                    schema: &it["schema"],
                    needed: it["required"] == true,
                })
            })
            .filter(|field| !PAGING.contains(&field.name))
            .collect();
        let title = "Filters, each as FIELD=VALUE:";
        (!fields.is_empty()).then(|| self.listed(title, &fields))
    }

    /// The operation at a path whose `{0}` may be called otherwise there; one without placeholders comes first.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or(path);
        let wanted: Vec<&str> = path.split('/').collect();
        let fits = |known: &str| {
            let known: Vec<&str> = known.trim_start_matches(BASE).split('/').collect();
            let open = |segment: &str| segment.starts_with('{');
            known.len() == wanted.len()
                && known
                    .iter()
                    .zip(&wanted)
                    .all(|(known, wanted)| known == wanted || open(known))
        };
        let paths = self.0["paths"].as_object()?;
        let method = method.to_lowercase();
        let mut found: Vec<(&String, &Value)> = paths
            .iter()
            .filter(|(known, methods)| fits(known) && methods.get(&method).is_some())
            .collect();
        found.sort_by_key(|(known, _)| known.matches('{').count());
        found.first().map(|(_, methods)| &methods[&method])
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
            Some(name) => &self.0["components"]["schemas"][name],
            None => schema,
        }
    }

    fn listed(&self, title: &str, fields: &[Field<'_>]) -> String {
        listed(title, fields, &|schema| self.resolved(schema).clone())
    }
}

/// The parameters of a schema of one flat object, such as a pipeline's.
pub(super) fn parameters(title: &str, schema: &Value, hidden: &[&str]) -> String {
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let fields: Vec<Field<'_>> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !hidden.contains(&name.as_str()))
        .map(|(name, schema)| Field {
            name,
            schema,
            needed: required.iter().any(|it| it == name),
        })
        .collect();
    listed(title, &fields, &Value::clone)
}

#[derive(Debug)]
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
    needed: bool,
}

type Resolve<'a> = dyn Fn(&Value) -> Value + 'a;

fn listed(title: &str, fields: &[Field<'_>], resolve: &Resolve<'_>) -> String {
    let mut text = title.to_owned();
    for field in fields {
        let mut head = format!("{} ({}", field.name, kind(field.schema, resolve));
        if field.needed {
            head.push_str("; needed");
        } else if let Some(default) = default(field.schema) {
            _ = write!(head, "; {default} if absent");
        }
        head.push(')');
        for (at, line) in wrapped(&head, WIDTH - 2).iter().enumerate() {
            let indent = if at == 0 { "  " } else { INDENT };
            _ = write!(text, "\n{indent}{line}");
        }
        let about = field.schema["description"].as_str().unwrap_or_default();
        for line in wrapped(about, WIDTH - INDENT.len()) {
            _ = write!(text, "\n{INDENT}{line}");
        }
        if let Some(example) = field.schema["examples"].get(0) {
            _ = write!(text, "\n{INDENT}{}", typed(field.name, example));
        }
    }
    text
}

/// What a value is, in the words of a person.
fn kind(schema: &Value, resolve: &Resolve<'_>) -> String {
    let schema = &resolve(schema);
    if let Some(choices) = schema["anyOf"].as_array() {
        let some = choices.iter().find(|choice| choice["type"] != "null");
        return some.map_or_else(|| "any".to_owned(), |choice| kind(choice, resolve));
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words
            .iter()
            .filter_map(Value::as_str)
            .filter(|word| !word.is_empty())
            .collect();
        return words.join(" | ");
    }
    if schema.get("x-content").is_some() {
        return "content: artifact:ID, or @PATH to send it".to_owned();
    }
    let word = match &schema["type"] {
        Value::String(word) => word.as_str(),
        Value::Array(words) => words
            .iter()
            .filter_map(Value::as_str)
            .find(|word| *word != "null")
            .unwrap_or("any"),
        _ => "any",
    };
    match word {
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "string" => "text".to_owned(),
        "integer" => format!("whole number{}", range(schema)),
        "number" => format!("number{}", range(schema)),
        "boolean" => "true or false".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"], resolve)),
        "object" => "JSON object".to_owned(),
        _ => "JSON or text".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let (least, most) = (&schema["minimum"], &schema["maximum"]);
    match (least.is_null(), most.is_null()) {
        (false, false) => format!(", {least} to {most}"),
        (false, true) => format!(", {least} or more"),
        (true, false) => format!(", at most {most}"),
        (true, true) => String::new(),
    }
}

/// What holds where the field is left out, if that is more than nothing.
fn default(schema: &Value) -> Option<String> {
    match &schema["default"] {
        Value::Null => None,
        Value::String(text) if text.is_empty() => Some("empty".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        Value::Object(fields) if fields.is_empty() => Some("empty".to_owned()),
        other => Some(other.to_string()),
    }
}

/// A field as it is typed in a shell.
fn typed(name: &str, value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@+".contains(c);
    match text.chars().all(plain) {
        true => format!("{name}={text}"),
        false => format!("{name}='{text}'"),
    }
}

/// Lines of at most `width` characters, if no word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
