//! Tables for people.

use anyhow::Result;
use serde_json::Value;

use crate::cli::output;

/// Longest cell of a list.
const WIDEST: usize = 48;

/// A value in one line.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    text.replace(['\n', '\r', '\t'], " ")
}

fn short(value: &Value) -> String {
    let text = cell(value);
    // Instants to the second: the rest is for programs.
    if text.len() == 27 && text.ends_with('Z') && text.as_bytes()[10] == b'T' {
        return text[..19].replace('T', " ");
    }
    if let Some(hex) = text.strip_prefix("sha256:") {
        return format!("sha256:{}", hex.get(..12).unwrap_or(hex));
    }
    if text.chars().count() > WIDEST {
        return text.chars().take(WIDEST - 1).chain(['…']).collect();
    }
    text
}

/// A field by its path, or the first of several (`error.message|progress_message`) that is there.
pub(super) fn picked<'a>(item: &'a Value, paths: &str) -> &'a Value {
    let mut found = paths
        .split('|')
        .map(|path| path.split('.').fold(item, |it, part| &it[part]));
    found.find(|it| !it.is_null()).unwrap_or(&Value::Null)
}

pub(super) fn rows(columns: &[(&str, &str)], items: &[Value]) -> Result<()> {
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            columns
                .iter()
                .map(|(_, field)| short(picked(item, field)))
                .collect()
        })
        .collect();
    output::table(&headings, &rows)
}

/// How a version stands at the gate: what is missing, then what is required of it.
pub(super) fn gate(found: &Value) -> Result<()> {
    output::line(match (&found["open"], &found["evidence_outdated"]) {
        (Value::Bool(true), _) => "The gate is open to an approver who is not the author.",
        (_, Value::Bool(true)) => {
            "Evidence outdated: it stays where it serves, and rises no further."
        }
        _ => "The gate is closed.",
    })?;
    for missing in found["missing"].as_array().into_iter().flatten() {
        output::line(format!(
            "  {:22} {}",
            cell(&missing["field"]),
            cell(&missing["message"])
        ))?;
    }
    let columns = [
        ("EVALUATION", "name"),
        ("VERDICT", "verdict"),
        ("HOLDS", "holds"),
        ("RUN", "run"),
        ("DEPLOYMENT", "deployment"),
    ];
    let evaluations = found["evaluations"].as_array().cloned().unwrap_or_default();
    rows(&columns, &evaluations)
}

/// A model's page: what it is, then a line for each version.
pub(super) fn model(view: &Value) -> Result<()> {
    let model = &view["model"];
    output::line(format!("{}  {}", cell(&model["name"]), cell(&model["id"])))?;
    for (label, field) in [
        ("", "description"),
        ("Trained with ", "train_framework"),
        ("Runs on ", "inference_framework"),
        ("Code ", "code_url"),
        ("Dashboard ", "dashboard_url"),
    ] {
        if let Some(text) = model[field].as_str().filter(|text| !text.is_empty()) {
            output::line(format!("{label}{text}"))?;
        }
    }
    output::line("")?;
    let versions = view["versions"].as_array().cloned().unwrap_or_default();
    let lines: Vec<Vec<String>> = versions.iter().map(version).collect();
    output::table(
        &[
            "VERSION",
            "STATE",
            "TRAINING",
            "CONVERSION",
            "EVALUATION",
            "DEPLOYMENT",
            "DATA",
            "DIGEST",
        ],
        &lines,
    )
}

fn version(view: &Value) -> Vec<String> {
    let version = &view["version"];
    let run = |run: &Value| run["status"].as_str().unwrap_or("-").to_owned();
    let conversion = match view["conversion"]["parity_passed"].as_bool() {
        Some(true) => format!("{}, parity passed", run(&view["conversion"])),
        Some(false) => format!("{}, parity failed", run(&view["conversion"])),
        None => run(&view["conversion"]),
    };
    let joined = |items: &Value, line: &dyn Fn(&Value) -> String| {
        let lines: Vec<String> = items.as_array().into_iter().flatten().map(line).collect();
        if lines.is_empty() {
            "-".to_owned()
        } else {
            lines.join(", ")
        }
    };
    let evaluation = joined(&view["evaluations"], &|run| {
        let outcome = run["verdict"].as_str().or(run["status"].as_str());
        let withdrawn = if run["withdrawn_at"].is_null() {
            ""
        } else {
            ", withdrawn"
        };
        format!(
            "{} {}{withdrawn}",
            cell(&run["name"]),
            outcome.unwrap_or("-")
        )
    });
    let id = &version["id"];
    let deployment = joined(&view["deployments"], &|deployment| {
        let endpoint = cell(&deployment["endpoint"]);
        if deployment["live_version"] == *id {
            format!("{endpoint} live")
        } else {
            format!("{endpoint} {}", cell(&deployment["work_order_state"]))
        }
    });
    let data = joined(&view["datasets"], &|data| {
        format!("{}@v{}", cell(&data["name"]), cell(&data["number"]))
    });
    vec![
        format!("v{}", cell(&version["number"])),
        match view["evidence_outdated"].as_bool() {
            Some(true) => format!("{}, evidence outdated", cell(&version["state"])),
            _ => cell(&version["state"]),
        },
        run(&view["training"]),
        conversion,
        evaluation,
        deployment,
        data,
        short(&version["digest"]),
    ]
}
