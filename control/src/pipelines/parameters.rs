//! What a pipeline says of its parameters in `parameters.json`, a JSON Schema of one flat object, and parameters held
//! against it: what is wrong is told at once, not after an environment of gigabytes was made. The pipeline itself has the
//! last word.

use serde_json::{Map, Value as Json};

use super::content::{BadParam, ContentName};

/// Words of the protocol: parameters that let a pipeline run what comes with its source.
const TRUSTING: [&str; 2] = ["allow_pickle", "trust_remote_code"];

/// The parameter by which these would let a pipeline run what comes with its source, if one does.
pub fn trusting(params: &Json) -> Option<&'static str> {
    TRUSTING
        .into_iter()
        .find(|name| !matches!(params[name], Json::Null | Json::Bool(false)))
}

/// What is wrong with `params` by `schema`.
pub fn check(schema: &Json, params: &Json) -> Vec<BadParam> {
    let Some(known) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (name, value) in params.as_object().into_iter().flatten() {
        let field = format!("params.{name}");
        match known.get(name) {
            None => wrong.push(BadParam::new(
                &field,
                unknown(name, known.keys().map(String::as_str)),
            )),
            // null is how a form says "not given".
            Some(_) if value.is_null() => {}
            Some(schema) => {
                let problem =
                    expected(schema, value).or_else(|| beside(known, schema, params, value));
                wrong.extend(problem.map(|problem| BadParam::new(&field, problem)));
            }
        }
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Json::as_str) {
        if params[name].is_null() {
            let problem = match known[name]["description"].as_str() {
                Some(description) => format!("is missing: {description}"),
                None => "is missing".to_owned(),
            };
            wrong.push(BadParam::new(&format!("params.{name}"), problem));
        }
    }
    wrong
}

/// Why a value does not go with those of others, by the parameter's `x-refused`.
fn beside(known: &Map<String, Json>, schema: &Json, params: &Json, value: &Json) -> Option<String> {
    let of = |name: &str| match &params[name] {
        Json::Null => known.get(name).map_or(&Json::Null, |it| &it["default"]),
        given => given,
    };
    let rules = schema["x-refused"].as_array()?;
    let rule = rules.iter().find(|rule| {
        let meant = match rule.get("is") {
            Some(only) => only == value,
            None => *value != Json::Bool(false),
        };
        let mut others = rule["beside"].as_object().into_iter().flatten();
        let listed =
            |values: &Json, it: &Json| values.as_array().is_some_and(|all| all.contains(it));
        meant && others.all(|(name, values)| listed(values, of(name)))
    })?;
    rule["because"].as_str().map(str::to_owned)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => format!("is not known; did you mean {near}?"),
        None => format!(
            "is not known; there are {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What a value should be, if it is something else.
fn expected(schema: &Json, value: &Json) -> Option<String> {
    if schema.get("x-content").is_some() {
        let names = value.as_str().and_then(ContentName::parse);
        return names
            .is_none()
            .then(|| "should name content, as artifact:ID or artifact:ID/path".to_owned());
    }
    if let Some(choices) = schema["enum"].as_array() {
        let words: Vec<&str> = choices.iter().filter_map(Json::as_str).collect();
        return (!choices.contains(value))
            .then(|| format!("should be one of {}", words.join(", ")));
    }
    let (fits, word) = match schema["type"].as_str() {
        Some("string") => (value.is_string(), "a text"),
        Some("boolean") => (value.is_boolean(), "true or false"),
        Some("integer") => (value.is_i64() || value.is_u64(), "a whole number"),
        Some("number") => (value.is_number(), "a number"),
        Some("object") => (value.is_object(), "an object"),
        Some("array") => (value.is_array(), "a list"),
        _ => return None,
    };
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    let within = value.as_f64().is_none_or(|number| {
        least.is_none_or(|it| it <= number) && most.is_none_or(|it| number <= it)
    });
    if fits && within {
        return None;
    }
    Some(match (least, most) {
        (Some(least), Some(most)) => format!("should be {word} from {least} to {most}"),
        _ => format!("should be {word}"),
    })
}
