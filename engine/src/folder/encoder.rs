//! A text encoder folder: Hugging Face's `config.json` and the files that
//! sentence-transformers adds (pooling, maximal length, normalisation).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{read_json, wrong};
use crate::error::LoadError;

/// How token vectors become one vector. As in sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean over all tokens but padding.
    Mean,
    /// The maximum of each element over all tokens but padding.
    Max,
    /// The sum over all tokens but padding, divided by the square root of their number.
    MeanSqrtLength,
    /// The last token's vector.
    LastToken,
}

/// A text encoder as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// The graph's file.
    pub model: PathBuf,
    /// Class of the source model, for example `BertModel` or
    /// `BertForSequenceClassification`.
    pub architecture: String,
    /// Elements of a token's vector.
    pub hidden_size: u32,
    /// Tokens that one text may have, special tokens included.
    pub max_tokens: u32,
    /// How token vectors become one; `None` when the folder does not say.
    pub pooling: Option<Pooling>,
    /// The vector is scaled to length 1.
    pub normalize: bool,
    /// Token for padding.
    pub pad: u32,
    /// Names of the classes, by index, for a classifier.
    pub labels: Vec<String>,
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(alias = "dim", alias = "d_model")]
    hidden_size: Option<u64>,
    max_position_embeddings: Option<u64>,
    pad_token_id: Option<i64>,
    model_type: Option<String>,
    id2label: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    is_encoder_decoder: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own form")]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct LengthFile {
    max_seq_length: Option<u64>,
}

impl EncoderConfig {
    pub(super) fn read(dir: &Path, model: PathBuf) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let file: ConfigFile = read_json(&path)?;
        let architecture = file
            .architectures
            .into_iter()
            .next()
            .or(file.model_type.clone())
            .unwrap_or_default();
        if file.is_encoder_decoder {
            return Err(LoadError::Unsupported {
                model: dir.display().to_string(),
                reason: format!("encoder-decoder models are not supported (`{architecture}`)"),
            });
        }
        let positive = |field: &str, value: Option<u64>| match value {
            Some(value) if (1..=1 << 24).contains(&value) => {
                Ok(u32::try_from(value).unwrap_or(u32::MAX))
            }
            Some(value) => Err(wrong(
                &path,
                &format!("{field} is {value}, it must be positive"),
            )),
            None => Err(wrong(&path, &format!("{field} is missing"))),
        };
        let (pooling, normalize) = modules(dir)?;
        let positions = positive("max_position_embeddings", file.max_position_embeddings)?;
        // RoBERTa's positions start after the padding index.
        let offset = match file.model_type.as_deref() {
            Some("roberta" | "xlm-roberta" | "camembert") => 2,
            _ => 0,
        };
        let longest = positions.saturating_sub(offset).max(1);
        Ok(Self {
            model,
            architecture,
            hidden_size: positive("hidden_size", file.hidden_size)?,
            max_tokens: max_seq_length(dir)?.map_or(longest, |length| length.min(longest)),
            pooling,
            normalize,
            pad: file
                .pad_token_id
                .and_then(|id| u32::try_from(id).ok())
                .unwrap_or(0),
            labels: labels(file.id2label.as_ref()),
        })
    }
}

/// Labels in the order of their indices.
fn labels(map: Option<&serde_json::Map<String, serde_json::Value>>) -> Vec<String> {
    let mut labels: Vec<(u32, String)> = map
        .into_iter()
        .flatten()
        .filter_map(|(index, label)| Some((index.parse().ok()?, label.as_str()?.to_owned())))
        .collect();
    labels.sort();
    labels.into_iter().map(|(_, label)| label).collect()
}

fn max_seq_length(dir: &Path) -> Result<Option<u32>, LoadError> {
    let path = dir.join("sentence_bert_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let file: LengthFile = read_json(&path)?;
    match file.max_seq_length {
        None => Ok(None),
        Some(length) if (1..=1 << 24).contains(&length) => Ok(u32::try_from(length).ok()),
        Some(length) => Err(wrong(
            &path,
            &format!("max_seq_length is {length}, it must be positive"),
        )),
    }
}

/// Pooling and normalisation out of `modules.json`, or of `1_Pooling` alone.
fn modules(dir: &Path) -> Result<(Option<Pooling>, bool), LoadError> {
    let path = dir.join("modules.json");
    if !path.is_file() {
        let pooling = dir.join("1_Pooling").join("config.json");
        let pooling = pooling
            .is_file()
            .then(|| read_pooling(&pooling))
            .transpose()?;
        return Ok((pooling, false));
    }
    let (mut pooling, mut normalize) = (None, false);
    for module in read_json::<Vec<Module>>(&path)? {
        match module.r#type.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Dropout" => {}
            "Pooling" => {
                pooling = Some(read_pooling(&dir.join(module.path).join("config.json"))?);
            }
            "Normalize" => normalize = true,
            other => {
                return Err(LoadError::Unsupported {
                    model: dir.display().to_string(),
                    reason: format!(
                        "sentence-transformers module `{other}` (supported: Transformer, Pooling, Normalize)"
                    ),
                });
            }
        }
    }
    Ok((pooling, normalize))
}

fn read_pooling(path: &Path) -> Result<Pooling, LoadError> {
    let file: PoolingFile = read_json(path)?;
    let modes = [
        (file.pooling_mode_cls_token, Some(Pooling::Cls)),
        (file.pooling_mode_mean_tokens, Some(Pooling::Mean)),
        (file.pooling_mode_max_tokens, Some(Pooling::Max)),
        (
            file.pooling_mode_mean_sqrt_len_tokens,
            Some(Pooling::MeanSqrtLength),
        ),
        (file.pooling_mode_lasttoken, Some(Pooling::LastToken)),
        (file.pooling_mode_weightedmean_tokens, None),
    ];
    let on: Vec<_> = modes.iter().filter(|(on, _)| *on).collect();
    match on.as_slice() {
        [(_, Some(pooling))] => Ok(*pooling),
        [] => Err(wrong(path, "no pooling mode is on; exactly one must be")),
        _ => Err(wrong(
            path,
            "several pooling modes are on, or the weighted mean is; supported is one of cls, mean, \
             max, mean_sqrt_len, lasttoken",
        )),
    }
}
