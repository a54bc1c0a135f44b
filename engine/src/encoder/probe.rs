//! Compares a loaded encoder with what its source model says, as stored in the
//! folder when it was converted (`sluice_probe.json`).

use std::path::Path;

use serde::Deserialize;

use crate::error::LoadError;
use crate::folder::{EncoderConfig, read_json, wrong};

use super::graph::{EncoderSession, Head};
use super::pooling;
use super::text::EncoderText;

#[derive(Deserialize)]
struct ProbeFile {
    format: u32,
    kind: String,
    prompts: Vec<Prompt>,
    /// Least cosine between vectors.
    #[serde(default = "default_cosine")]
    min_cosine: f64,
    /// Greatest difference between logits, where an angle says nothing.
    #[serde(default = "default_difference")]
    max_difference: f32,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    /// The embedding, or the logits of a classifier.
    embedding: Vec<f32>,
}

fn default_cosine() -> f64 {
    0.999
}

fn default_difference() -> f32 {
    0.01
}

/// Runs the folder's probe, if it has one.
pub(super) fn check(
    name: &str,
    dir: &Path,
    text: &EncoderText,
    config: &EncoderConfig,
    session: &mut EncoderSession,
) -> Result<(), LoadError> {
    let path = dir.join("sluice_probe.json");
    if !path.is_file() {
        tracing::warn!(model = name, "no sluice_probe.json: parity is not checked");
        return Ok(());
    }
    let probe: ProbeFile = read_json(&path)?;
    if probe.format != 1 || probe.kind != "encoder" || probe.prompts.is_empty() {
        return Err(wrong(
            &path,
            "expected format 1, kind `encoder` and at least one prompt",
        ));
    }
    let parity = |reason: String| LoadError::Parity {
        model: name.to_owned(),
        reason,
    };
    for (index, prompt) in probe.prompts.iter().enumerate() {
        let encoded = text.tokenize(&prompt.text, true);
        let encoded = encoded.and_then(|encoded| text.fit(encoded, true));
        let encoded = encoded.map_err(|e| parity(format!("prompt {index}: {e}")))?;
        let mut rows = session
            .run(&[&encoded])
            .map_err(|e| parity(format!("prompt {index}: {e}")))?;
        let mut row = rows.swap_remove(0);
        if config.normalize && session.head() == Head::Embedding {
            pooling::normalize(&mut row);
        }
        if row.len() != prompt.embedding.len() {
            let (got, expected) = (row.len(), prompt.embedding.len());
            return Err(parity(format!(
                "prompt {index}: {got} elements, the source model has {expected}"
            )));
        }
        compare(session.head(), &row, &prompt.embedding, &probe)
            .map_err(|reason| parity(format!("prompt {index}: {reason}")))?;
    }
    Ok(())
}

fn compare(head: Head, row: &[f32], expected: &[f32], probe: &ProbeFile) -> Result<(), String> {
    match head {
        Head::Embedding => {
            let (cosine, least) = (pooling::cosine(row, expected), probe.min_cosine);
            if cosine.is_nan() || cosine < least {
                return Err(format!(
                    "cosine {cosine:.6} with the source model, at least {least} is required"
                ));
            }
        }
        Head::Logits { .. } => {
            let most = probe.max_difference;
            for (got, expected) in row.iter().zip(expected) {
                let difference = (got - expected).abs();
                if difference.is_nan() || difference > most {
                    return Err(format!(
                        "logit {got}, the source model has {expected}, allowed is {most} of difference"
                    ));
                }
            }
        }
    }
    Ok(())
}
