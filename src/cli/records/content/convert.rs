//! `sluice model convert`: from a checkpoint to a version that can be served, with its parity.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::API;
use super::before::{self, Asked, TO_BE_SENT};
use super::push::Sender;
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};
use crate::cli::records::view::cell;
use crate::cli::records::{fields, watch};

/// Convert a checkpoint by a pipeline; parity with the source is part of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice convert pipelines\n  sluice convert parameters convert-causal-lm      # what PARAM=VALUE may be\n  sluice model convert helpdesk --pipeline convert-causal-lm --source checkpoints/v2 --add-version\n  sluice model convert helpdesk --pipeline convert-causal-lm --source art_… precision=int8 texts=@texts.txt --wait"
)]
pub(super) struct Convert {
    #[command(flatten)]
    server: Server,
    /// The model that the result is a version of.
    #[arg(value_name = "NAME")]
    model: String,
    /// Which pipeline; `sluice convert pipelines` lists them.
    #[arg(long)]
    pipeline: String,
    /// The checkpoint: a folder or file of this machine, which is sent first, or an artifact (ID, or artifact:ID/path).
    #[arg(long)]
    source: String,
    /// The pipeline's parameters, PARAM=VALUE; @PATH sends a file or folder. `sluice convert parameters PIPELINE` lists them.
    #[arg(value_name = "PARAM=VALUE")]
    params: Vec<String>,
    /// Wait, and register the result as the model's next version.
    #[arg(long)]
    add_version: bool,
    /// Wait until it is over, with a progress bar.
    #[arg(long)]
    wait: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Convert {
    pub(super) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let place = Some(Path::new(&self.source)).filter(|place| place.exists());
        let (mut params, places) = self.typed()?;
        let asked = Asked {
            model: &self.model,
            pipeline: &self.pipeline,
            source: place,
            params: &params,
        };
        before::check(&client, &asked).await?;
        for (name, place) in places {
            params[name] = json!(self.content(&client, place).await?);
        }
        let source = match place {
            Some(place) => self.content(&client, place).await?,
            None => self.source.clone(),
        };
        let body = json!({ "pipeline": self.pipeline, "source": source, "params": params });
        let path = format!("{API}/models/{}/conversions", fields::encoded(&self.model));
        let run = client.post(&path, &body).await?;
        if !self.wait && !self.add_version {
            if !self.output.document(&run)? {
                output::line(cell(&run["id"]))?;
            }
            return Ok(());
        }
        watch::at_end(&client, &format!("{API}/tasks/{}", cell(&run["task"]))).await?;
        let run = client
            .get(&format!("{API}/conversions/{}", cell(&run["id"])))
            .await?;
        self.finish(&client, run).await
    }

    /// The parameters, and those of them that are still to be sent.
    fn typed(&self) -> Result<(Value, Vec<(&str, &Path)>)> {
        let looks_sent = self.source.contains(':') || self.source.starts_with("art_");
        if !looks_sent && !Path::new(&self.source).exists() {
            bail!(
                "source: there is no {}; name a folder or file of this machine, or an artifact by its id",
                self.source
            );
        }
        let (mut params, mut places) = (json!({}), Vec::new());
        for argument in &self.params {
            let Some((name, place)) = argument.split_once("=@") else {
                let (name, value) = fields::pair(argument)?;
                params[name] = value;
                continue;
            };
            let place = Path::new(place);
            if !place.exists() {
                bail!("{name}: there is no {}", place.display());
            }
            params[name] = json!(TO_BE_SENT);
            places.push((name, place));
        }
        Ok((params, places))
    }

    /// Sends what lies at `place`; how a parameter names it.
    async fn content(&self, client: &ApiClient, place: &Path) -> Result<String> {
        let sender = Sender {
            client,
            parallel: 4,
            hidden: false,
        };
        let name = format!("{}-source", self.model);
        let sent = sender
            .send(&[PathBuf::from(place)], &name, "checkpoint")
            .await?;
        let id = sent["id"].as_str().context("the answer has no id")?;
        let file = match place.is_file() {
            true => place.file_name().and_then(|name| name.to_str()),
            false => None,
        };
        Ok(match file {
            Some(file) => format!("artifact:{id}/{file}"),
            None => format!("artifact:{id}"),
        })
    }

    async fn finish(&self, client: &ApiClient, mut run: Value) -> Result<()> {
        let succeeded = run["status"] == "succeeded";
        if succeeded && self.add_version {
            run["model_version"] = self.version(client, &run).await?;
        }
        if !self.output.document(&run)? {
            parity(&run["parity"])?;
            for (what, value) in [
                ("run", &run["id"]),
                ("artifact", &run["output_artifact"]),
                ("digest", &run["output_digest"]),
            ] {
                output::line(format!("{what} {}", cell(value)))?;
            }
            if let Some(number) = run["model_version"]["number"].as_i64() {
                output::line(format!("version {}@v{number}", self.model))?;
            }
        }
        if succeeded {
            return Ok(());
        }
        bail!("it ended {}: {}", cell(&run["status"]), cell(&run["error"]))
    }

    async fn version(&self, client: &ApiClient, run: &Value) -> Result<Value> {
        let versions = format!("{API}/models/{}/versions", fields::encoded(&self.model));
        let draft = client
            .post(&versions, &json!({ "conversion_run": run["id"] }))
            .await?;
        let register = format!("{versions}/{}/register", cell(&draft["number"]));
        client
            .post(&register, &json!({ "artifact": run["output_artifact"] }))
            .await
    }
}

/// The measures of a parity report, each with its limit.
fn parity(report: &Value) -> Result<()> {
    let Some(measures) = report["measures"].as_object() else {
        return Ok(());
    };
    let rows: Vec<Vec<String>> = measures
        .iter()
        .map(|(name, measure)| {
            let limit = match (measure["most"].as_f64(), measure["least"].as_f64()) {
                (Some(most), _) => format!("at most {most}"),
                (None, Some(least)) => format!("at least {least}"),
                (None, None) => "-".to_owned(),
            };
            let value = measure["value"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.6}"));
            let passed = if measure["passed"] == true {
                "yes"
            } else {
                "NO"
            };
            vec![name.clone(), value, limit, passed.to_owned()]
        })
        .collect();
    output::table(&["MEASURE", "VALUE", "LIMIT", "PASSED"], &rows)
}
