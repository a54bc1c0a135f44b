//! `sluice apply`: everything as code.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::view::cell;
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};

/// Make or change records as a YAML file says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice apply -f records.yaml --dry-run     # what would change\n  sluice apply -f records.yaml\n  cat records.yaml | sluice apply -f -\n\nOne document a record, separated by ---; `kind` is department, principal, model, dataset,\ntraining, evaluation, deployment, quota, grant, key, version, work_order or release, the other\nfields are those of `create` and the API:\n\n  kind: model\n  name: helpdesk\n  description: Answers IT questions\n  ---\n  kind: version                # of a model, or with `dataset:` of a dataset\n  model: helpdesk\n  number: 1                    # or known by its content: artifact: art_… or digest: sha256:…\n  artifact: art_…\n  ---\n  kind: deployment\n  endpoint: helpdesk\n  model: helpdesk\n  ---\n  kind: grant\n  deployment: helpdesk\n  department: sales\n  access: use\n  ---\n  kind: key                    # the secret is printed once; or give `sha256:`, the hash of one\n  name: ci\n  principal: robot\n  ---\n  kind: work_order             # or kind: release, to move traffic in steps\n  deployment: helpdesk\n  version: v1\n\nAll of it is done, or nothing of it: where a record is refused, it is named and nothing was\nmade. --dry-run does the same and undoes it. A record may refer to earlier ones. Keys and\nversions that are there are left alone, and refused where they differ. Work orders and\nreleases are ordered along with the rest, and begin when all of it is in the records."
)]
pub(crate) struct Apply {
    #[command(flatten)]
    server: Server,
    /// The file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Change nothing, show what would.
    #[arg(long)]
    dry_run: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

/// A record of the file, and the line that it begins at.
#[derive(Debug)]
struct Document {
    line: usize,
    text: String,
    value: Value,
}

impl Apply {
    pub(crate) async fn run(self) -> Result<()> {
        let file = self.file.display().to_string();
        let text = if self.file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        } else {
            std::fs::read_to_string(&self.file).with_context(|| file.clone())?
        };
        let documents = documents(&file, &text)?;
        let records: Vec<&Value> = documents.iter().map(|document| &document.value).collect();
        let body = json!({ "records": records, "dry_run": self.dry_run });
        let client = ApiClient::new(&self.server)?;
        let answer = client
            .call("POST", "/api/v1/apply", Some(&body), &[])
            .await
            .map_err(|error| placed(&file, &documents, &error))?;
        if self.output.document(&answer["results"])? {
            return Ok(());
        }
        let results = answer["results"].as_array().cloned().unwrap_or_default();
        results
            .iter()
            .try_for_each(|result| show(result, self.dry_run))
    }
}

/// The documents of a file, each with its line.
fn documents(file: &str, text: &str) -> Result<Vec<Document>> {
    let mut parts: Vec<(usize, String)> = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            parts.push((index + 2, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut documents = Vec::new();
    for (line, text) in parts {
        let value: Value = serde_norway::from_str(&text).map_err(|error| {
            let at = error
                .location()
                .map_or(line, |place| line + place.line() - 1);
            anyhow!("{file}:{at}: {error}")
        })?;
        match value {
            // Only comments or nothing between two separators.
            Value::Null => {}
            Value::Object(_) => documents.push(Document { line, text, value }),
            _ => bail!("{file}:{line}: should be fields, such as `kind: model`"),
        }
    }
    Ok(documents)
}

/// The server names `records[1].name`; people look for a line.
fn placed(file: &str, documents: &[Document], error: &anyhow::Error) -> anyhow::Error {
    let message = error.to_string();
    let place = message.split_once("records[").and_then(|(_, rest)| {
        let (index, rest) = rest.split_once(']')?;
        let document = documents.get(index.parse::<usize>().ok()?)?;
        let field = rest
            .trim_start_matches([':', '.', ' '])
            .split([':', '.', ' '])
            .next()?;
        let within = document
            .text
            .lines()
            .position(|line| line.starts_with(&format!("{field}:")));
        Some(document.line + within.unwrap_or(0))
    });
    match place {
        Some(line) => anyhow!("{file}:{line}: {message}; nothing was applied"),
        None => anyhow!("{file}: {message}"),
    }
}

/// `model helpdesk created`, and for a change the fields that differ.
fn show(result: &Value, dry_run: bool) -> Result<()> {
    let after = &result["after"];
    let named = result["name"].as_str().filter(|name| !name.is_empty());
    // An older server does not say what a record is called.
    let name = named.or_else(|| {
        let mut names = ["name", "endpoint"].iter();
        names.find_map(|field| after[field].as_str())
    });
    let would = if dry_run { "would be " } else { "" };
    let outcome = match (cell(&result["outcome"]).as_str(), dry_run) {
        ("unchanged", _) => "unchanged".to_owned(),
        (outcome, _) => format!("{would}{outcome}"),
    };
    let name = name.map_or_else(|| cell(&result["id"]), str::to_owned);
    output::line(format!("{} {name} {outcome}", cell(&result["kind"])))?;
    if let Some(secret) = result["secret"].as_str() {
        output::line(format!("  its key, which is not shown again: {secret}"))?;
    }
    if let (true, Some(waits)) = (result["outcome"] == "ordered", after["waits_for"].as_str()) {
        output::line(format!("  waits for {waits}"))?;
    }
    if result["outcome"] != "updated" {
        return Ok(());
    }
    for (field, new) in after.as_object().into_iter().flatten() {
        let old = &result["before"][field];
        if old != new {
            output::line(format!("  - {field}: {}", cell(old)))?;
            output::line(format!("  + {field}: {}", cell(new)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn errors_name_the_line() {
        let text = "# people\nkind: department\nname: it\n---\n\nkind: model\nname: m\nbad: 1\n---\n# nothing\n";
        let documents = documents("f.yaml", text).unwrap();
        assert_eq!(
            documents.iter().map(|it| it.line).collect::<Vec<_>>(),
            [1, 5]
        );
        let error = anyhow!("records[1]: bad: is not known (HTTP 422)");
        assert!(
            placed("f.yaml", &documents, &error)
                .to_string()
                .starts_with("f.yaml:8: ")
        );
        let error = super::documents("f.yaml", "kind: model\n---\nname: [\n").unwrap_err();
        assert!(error.to_string().starts_with("f.yaml:4"), "{error}");
    }
}
