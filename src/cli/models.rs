//! `sluice models`: what the server serves.

use anyhow::Result;
use serde_json::Value;

use super::client::{ApiClient, Server};
use super::output::{self, Format};

/// List the models that a server serves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sluice models\n  sluice models -o json | jq '.data[].id'")]
pub(crate) struct Models {
    #[command(flatten)]
    server: Server,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Models {
    pub(crate) async fn run(self) -> Result<()> {
        let list = ApiClient::new(&self.server)?.get("/v1/models").await?;
        if self.output == Format::Json {
            return output::json(&list);
        }
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let models = list["data"].as_array().cloned().unwrap_or_default();
        let rows: Vec<Vec<String>> = models
            .iter()
            .map(|model| {
                ["id", "kind", "revision", "max_model_len"]
                    .iter()
                    .map(|field| text(&model[field]))
                    .collect()
            })
            .collect();
        output::table(&["MODEL", "KIND", "REVISION", "CONTEXT"], &rows)
    }
}

/// The only model of the given kind, when the user named none.
///
/// # Errors
/// There is none, or the choice is not obvious; the message lists the names.
pub(crate) async fn default_model(client: &ApiClient, kind: &str) -> Result<String> {
    let list = client.get("/v1/models").await?;
    let all: Vec<&Value> = list["data"]
        .as_array()
        .map(|models| models.iter().collect())
        .unwrap_or_default();
    let matching: Vec<&str> = all
        .iter()
        .filter(|model| model["kind"] == kind)
        .filter_map(|model| model["id"].as_str())
        .collect();
    match (matching.as_slice(), all.as_slice()) {
        ([only], _) => Ok((*only).to_owned()),
        ([], [only]) if only["kind"].is_null() => {
            Ok(only["id"].as_str().unwrap_or_default().to_owned())
        }
        ([], _) => {
            anyhow::bail!("the server has no {kind} model; `sluice models` lists what it has")
        }
        (several, _) => anyhow::bail!(
            "name a model with -m; the server has {}",
            several.join(", ")
        ),
    }
}
