//! What the files beside `tokenizer.json` say about special tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::LoadError;

/// Spellings of the special tokens that chat templates refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// The others by name: `pad_token`, `unk_token`, `sep_token`, ….
    pub others: BTreeMap<String, String>,
}

impl SpecialTokens {
    /// Reads `*_token` entries, each a string or an object with `content`.
    #[must_use]
    pub fn from_config(config: &Map<String, Value>) -> Self {
        let mut tokens = Self::default();
        for (name, value) in config {
            if !name.ends_with("_token") {
                continue;
            }
            let content = value.as_str().or_else(|| value.get("content")?.as_str());
            let Some(content) = content.map(str::to_owned) else {
                continue;
            };
            match name.as_str() {
                "bos_token" => tokens.bos = Some(content),
                "eos_token" => tokens.eos = Some(content),
                _ => {
                    tokens.others.insert(name.clone(), content);
                }
            }
        }
        tokens
    }

    /// Takes from `other` what is missing here.
    fn fill_from(&mut self, other: Self) {
        self.bos = self.bos.take().or(other.bos);
        self.eos = self.eos.take().or(other.eos);
        for (name, content) in other.others {
            self.others.entry(name).or_insert(content);
        }
    }
}

/// Settings gathered from the small JSON files of a model folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// From `tokenizer_config.json`, completed by `special_tokens_map.json`.
    pub special: SpecialTokens,
    /// Every `eos_token_id` of `generation_config.json`, `genai_config.json` and
    /// `config.json`, in this order, each once.
    pub eos_ids: Vec<u32>,
}

impl TokenizerFiles {
    /// Reads what is there; a missing file is no error, a malformed one is.
    ///
    /// # Errors
    /// [`LoadError::Folder`].
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        let mut files = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            if let Some(config) = read_object(&dir.join(name))? {
                files.special.fill_from(SpecialTokens::from_config(&config));
            }
        }
        let sources: [(&str, &[&str]); 4] = [
            ("generation_config.json", &["eos_token_id"]),
            ("genai_config.json", &["model", "eos_token_id"]),
            ("config.json", &["eos_token_id"]),
            ("config.json", &["text_config", "eos_token_id"]),
        ];
        for (name, keys) in sources {
            let Some(config) = read_object(&dir.join(name))? else {
                continue;
            };
            let config = Value::Object(config);
            let value = keys.iter().try_fold(&config, |value, key| value.get(key));
            for id in value.map(ids).unwrap_or_default() {
                if !files.eos_ids.contains(&id) {
                    files.eos_ids.push(id);
                }
            }
        }
        Ok(files)
    }
}

/// An id or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        single => id(single).into_iter().collect(),
    }
}

/// A JSON object from a file that may be missing.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, LoadError> {
    let folder = |reason: String| LoadError::Folder {
        path: path.to_owned(),
        reason,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(folder(e.to_string())),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(folder("is not a JSON object".to_owned())),
        Err(e) => Err(folder(format!("is not JSON: {e}"))),
    }
}
