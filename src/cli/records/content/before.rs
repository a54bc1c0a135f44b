//! What can be known to be wrong with a conversion, asked before the first byte of a checkpoint is sent. The server asks
//! the same again.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sluice_control::pipelines::{Checkpoint, check_params, check_source, looks_into, trusting};

use super::API;
use super::files;
use crate::cli::client::ApiClient;
use crate::cli::records::fields::encoded;

/// A conversion as it is about to be asked for.
pub(super) struct Asked<'a> {
    pub model: &'a str,
    pub pipeline: &'a str,
    /// The folder or file of this machine, where the checkpoint lies here.
    pub source: Option<&'a Path>,
    /// The parameters; content that is still to be sent as [`TO_BE_SENT`].
    pub params: &'a Value,
}

/// Stands for content that has no id yet.
pub(super) const TO_BE_SENT: &str = "artifact:art_00000000000000000000000000";

/// # Errors
/// What would be refused: the model, the right to convert, the pipeline, its parameters, the checkpoint.
pub(super) async fn check(client: &ApiClient, asked: &Asked<'_>) -> Result<()> {
    client
        .get(&format!("{API}/models/{}", encoded(asked.model)))
        .await?;
    let me = client.get(&format!("{API}/me")).await?;
    let may = |verb: &str| {
        me["may"]
            .as_array()
            .is_none_or(|may| may.iter().any(|it| it == verb))
    };
    if !may("run_task") {
        bail!(
            "your role, {}, may not run conversions",
            me["role"].as_str().unwrap_or("-")
        );
    }
    if let Some(name) = trusting(asked.params).filter(|_| !may("administer")) {
        bail!("{name}: what comes with a checkpoint is run on the server only for administrators");
    }
    let listed = client.get(&format!("{API}/pipelines")).await?;
    let pipelines: Vec<(&str, &Value)> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it["name"].as_str()?, &it["parameters"])))
        .collect();
    // A server that leaves conversions to workers elsewhere knows none.
    if pipelines.is_empty() {
        return Ok(());
    }
    let Some((_, schema)) = pipelines.iter().find(|(name, _)| *name == asked.pipeline) else {
        let names: Vec<&str> = pipelines.iter().map(|(name, _)| *name).collect();
        bail!(
            "pipeline: {} is none; there are {}",
            asked.pipeline,
            names.join(", ")
        );
    };
    let mut params = asked.params.clone();
    params["source"] = json!(TO_BE_SENT);
    let mut wrong = check_params(schema, &params);
    if let Some(place) = asked.source.filter(|_| looks_into(schema)) {
        wrong.extend(check_source(
            schema,
            &params,
            &checkpoint(place)?,
            &pipelines,
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = wrong
        .iter()
        .map(|bad| format!("{}: {}", bad.field, bad.problem))
        .collect();
    bail!(
        "nothing was sent, because {} would be refused:\n  {}\n`sluice convert parameters {}` lists what it takes",
        asked.pipeline,
        told.join("\n  "),
        asked.pipeline
    )
}

/// A folder of this machine, with its small files.
fn checkpoint(place: &Path) -> Result<Checkpoint> {
    if !place.is_dir() {
        bail!(
            "source: {} is a file; name the folder of the checkpoint, with config.json and tokenizer",
            place.display()
        );
    }
    let found = files::found(&[place.to_owned()], false)?;
    let mut checkpoint = Checkpoint::new(found.files.into_iter().map(|it| (it.path, it.bytes)));
    for name in checkpoint.reads() {
        let path = place.join(name);
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        checkpoint.texts.insert(name, text);
    }
    Ok(checkpoint)
}
