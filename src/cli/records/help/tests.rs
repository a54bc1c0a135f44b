//! Every field that the API takes is described there, and in the help of the verb that sends it.
#![expect(clippy::unwrap_used, reason = "tests")]

use clap::{Command, Subcommand as _};
use serde_json::{Value, json};

use super::*;
use crate::cli::records::Noun;

/// Operations with fields that no verb sends as FIELD=VALUE, and what sends them instead.
const ELSEWHERE: [(&str, &str); 12] = [
    ("POST /apply", "sluice apply"),
    ("POST /artifacts", "sluice artifact push"),
    ("POST /uploads", "sluice artifact push"),
    ("POST /imports", "sluice artifact import"),
    ("POST /models/{id}/conversions", "sluice model convert"),
    ("POST /releases", "sluice release start"),
    ("POST /releases/{id}/pause", "sluice release pause"),
    ("POST /releases/{id}/resume", "sluice release resume"),
    ("POST /releases/{id}/promote", "sluice release promote"),
    ("POST /releases/{id}/abort", "sluice release abort"),
    ("POST /releases/{id}/rollback", "sluice rollback"),
    ("DELETE", "sluice NOUN delete"),
];

/// Method, path below [`BASE`] and schema of every body in JSON.
fn bodies(reference: &Reference) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in reference.0["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if !schema.is_null() {
                let path = path.trim_start_matches(BASE).to_owned();
                let schema = reference.resolved(schema).clone();
                all.push((method.to_uppercase(), path, schema));
            }
        }
    }
    all
}

/// What is wrong with the description of the fields of a schema and of those within.
fn undescribed(reference: &Reference, at: &str, schema: &Value, wrong: &mut Vec<String>) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties {
        let at = format!("{at} {name}");
        let lacks = |what: &str| format!("{at}: has no {what}");
        let described = property["description"].as_str();
        if described.is_none_or(|text| text.trim().is_empty()) {
            wrong.push(lacks("description"));
        }
        if property["examples"].as_array().is_none_or(Vec::is_empty) {
            wrong.push(lacks("example"));
        }
        let kind = kind(property, &|schema| reference.resolved(schema).clone());
        if kind.is_empty() || kind == "JSON or text" || kind == "any" {
            wrong.push(lacks("type"));
        }
        let items = reference.resolved(&property["items"]);
        undescribed(reference, &at, items, wrong);
    }
}

#[test]
fn every_field_of_every_body_says_what_it_is() {
    let reference = Reference::load();
    let mut wrong = Vec::new();
    let mut fields = 0;
    for (method, path, schema) in bodies(&reference) {
        fields += schema["properties"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        undescribed(&reference, &format!("{method} {path}"), &schema, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fields > 150, "{fields}");
}

#[test]
fn every_filter_says_what_it_is() {
    let reference = Reference::load();
    let mut wrong = Vec::new();
    for (path, methods) in reference.0["paths"].as_object().unwrap() {
        let parameters = methods["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten();
        for parameter in parameters.filter(|it| it["in"] == "query") {
            if parameter["schema"]["description"].as_str().is_none() {
                wrong.push(format!("{path} {}", parameter["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The verbs of all nouns with the operation that each sends its fields to, and its help.
fn verbs() -> Vec<(String, String, String)> {
    let mut command = Noun::augment_subcommands(Command::new("sluice"));
    command.build();
    let mut all = Vec::new();
    for noun in command.get_subcommands() {
        for verb in noun.get_subcommands() {
            let called = format!("{} {}", noun.get_name(), verb.get_name());
            let operation = crate::cli::records::verbs::operation(noun.get_name(), verb.get_name());
            let help = verb.clone().render_long_help().to_string();
            if let Some((method, path)) = operation {
                all.push((called, format!("{method} {path}"), help));
            }
        }
    }
    all
}

#[test]
fn every_field_stands_in_the_help_of_the_verb_that_sends_it() {
    let reference = Reference::load();
    let verbs = verbs();
    let mut missing = Vec::new();
    for (method, path, schema) in bodies(&reference) {
        let operation = format!("{method} {path}");
        if ELSEWHERE.iter().any(|(known, _)| *known == operation) {
            continue;
        }
        let sending: Vec<_> = verbs
            .iter()
            .filter(|(_, sent, _)| {
                let (verb, place) = sent.split_once(' ').unwrap();
                let found = reference.operation(verb, place);
                found.is_some_and(|it| {
                    std::ptr::eq(
                        it,
                        &reference.0["paths"][format!("{BASE}{path}")][method.to_lowercase()],
                    )
                })
            })
            .collect();
        if sending.is_empty() {
            missing.push(format!("no verb sends {operation}"));
        }
        for (called, _, help) in sending {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let example = typed(name, &property["examples"][0]);
                if !help.contains(&format!("\n  {name} (")) || !help.contains(&example) {
                    missing.push(format!("{called} --help says nothing of {name}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_filter_stands_in_the_help_of_its_list() {
    let reference = Reference::load();
    for (called, operation, help) in verbs() {
        let (method, path) = operation.split_once(' ').unwrap();
        if method != "GET" {
            continue;
        }
        let operation = reference.operation(method, path).unwrap();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|it| it["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            assert!(
                PAGING.contains(&name) || help.contains(&format!("\n  {name} (")),
                "{called} --help says nothing of {name}"
            );
        }
    }
}

#[test]
fn a_field_is_told_as_people_type_it() {
    let schema = json!({
        "required": ["precision"],
        "properties": {
            "precision": { "description": "weights of the result", "enum": ["fp32", "int8"], "default": "fp32" },
            "texts": { "description": "texts to check parity on", "type": "string", "x-content": "path" },
            "least": { "type": "number", "minimum": 0, "maximum": 1, "examples": [0.5] },
            "ask": { "type": "object", "default": {}, "examples": [{ "kind": "chat" }] },
            "source": { "type": "string" },
        },
    });
    assert_eq!(
        parameters("Parameters:", &schema, &["source"]),
        "Parameters:\n  \
           precision (fp32 | int8; needed)\n      \
               weights of the result\n  \
           texts (content: artifact:ID, or @PATH to send it)\n      \
               texts to check parity on\n  \
           least (number, 0 to 1)\n      \
               least=0.5\n  \
           ask (JSON object; empty if absent)\n      \
               ask='{\"kind\":\"chat\"}'"
    );
    let long = wrapped(&"word ".repeat(40), 20);
    assert!(long.iter().all(|line| line.len() <= 20) && long.len() == 10);
}
