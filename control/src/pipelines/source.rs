//! Whether a checkpoint is what a pipeline converts, by the names and sizes of its files and its few small JSON files:
//! asked before 70 GB are sent, and again of what lies here. What a pipeline wants stands in its `parameters.json`, as
//! `x-checkpoint` of the parameter `source`; the pipeline itself has the last word.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::content::BadParam;

/// Largest JSON file of a checkpoint that is looked into.
const LOOKED_INTO: u64 = 16 << 20;
const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
/// Weights that run code when they are opened.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// What a pipeline wants of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// What the first of `architectures` in config.json may be; empty for any. `*` at either end stands for any text.
    architectures: Vec<String>,
    /// Fields of config.json that must not be otherwise, such as `is_encoder_decoder: false`.
    config: BTreeMap<String, Json>,
    /// Files of which one holds the tokenizer, unless the parameter `tokenizer` names another.
    tokenizer: Vec<String>,
    /// Parameters that have to be given, unless something else says it.
    needs: BTreeMap<String, Unless>,
}

/// What makes a parameter unnecessary: one of the files, the architecture, or another parameter's value.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unless {
    files: Vec<String>,
    architectures: Vec<String>,
    params: BTreeMap<String, Vec<Json>>,
}

/// A folder of a checkpoint, as far as it is looked into.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Paths below the folder, with their bytes.
    pub files: BTreeMap<String, u64>,
    /// What the files hold that [`reads`](Self::reads) names.
    pub texts: BTreeMap<&'static str, Vec<u8>>,
}

impl Checkpoint {
    pub fn new(files: impl IntoIterator<Item = (String, u64)>) -> Self {
        Self {
            files: files.into_iter().collect(),
            texts: BTreeMap::new(),
        }
    }

    /// The files that have to be read to look into it.
    pub fn reads(&self) -> Vec<&'static str> {
        let small = |name: &&str| self.files.get(*name).is_some_and(|it| *it <= LOOKED_INTO);
        [CONFIG, INDEX].into_iter().filter(small).collect()
    }

    fn json(&self, name: &str) -> Option<Result<Json, String>> {
        let text = self.texts.get(name)?;
        Some(serde_json::from_slice(text).map_err(|error| error.to_string()))
    }

    fn at_the_top(&self) -> impl Iterator<Item = &str> {
        let names = self.files.keys().map(String::as_str);
        names.filter(|name| !name.contains('/') && !name.starts_with('.'))
    }
}

/// Whether a pipeline with these parameters looks into its source, which is a folder then.
pub fn looks_into(schema: &Json) -> bool {
    wanted(schema).is_some()
}

fn wanted(schema: &Json) -> Option<Wanted> {
    let said = schema["properties"]["source"].get("x-checkpoint")?;
    // One that a newer pipeline writes is for a newer server to understand.
    Wanted::deserialize(said).ok()
}

/// What is wrong with a checkpoint for the pipeline with the parameters of `schema`. `others` are the pipelines that there
/// are, with theirs.
pub fn check(
    schema: &Json,
    params: &Json,
    checkpoint: &Checkpoint,
    others: &[(&str, &Json)],
) -> Vec<BadParam> {
    let Some(wanted) = wanted(schema) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    match checkpoint.json(CONFIG) {
        _ if !checkpoint.files.contains_key(CONFIG) => {
            wrong.push(
                "has no config.json; name the folder of a checkpoint as Hugging Face has it".into(),
            );
        }
        Some(Ok(config)) => wrong.extend(about_config(&wanted, params, &config, others)),
        Some(Err(error)) => wrong.push(format!("has a config.json that is no JSON: {error}")),
        // Too large to be one, which the pipeline says.
        None => {}
    }
    wrong.extend(about_weights(checkpoint, params));
    wrong.extend(about_tokenizer(&wanted, checkpoint, params));
    let named = wrong
        .into_iter()
        .map(|problem| BadParam::new("source", problem));
    let mut named: Vec<BadParam> = named.collect();
    named.extend(about_needs(&wanted, checkpoint, params));
    named
}

fn about_needs(wanted: &Wanted, checkpoint: &Checkpoint, params: &Json) -> Vec<BadParam> {
    let config = checkpoint
        .json(CONFIG)
        .and_then(Result::ok)
        .unwrap_or_default();
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    let missing = wanted.needs.iter().filter(|(name, unless)| {
        let said = unless
            .files
            .iter()
            .any(|file| checkpoint.files.contains_key(file))
            || unless
                .architectures
                .iter()
                .any(|it| matches(it, architecture))
            || unless
                .params
                .iter()
                .any(|(other, values)| values.contains(&params[other.as_str()]));
        params[name.as_str()].is_null() && !said
    });
    missing
        .map(|(name, unless)| {
            let problem = format!(
                "is needed: the checkpoint has no {}",
                unless.files.join(" or ")
            );
            BadParam::new(&format!("params.{name}"), problem)
        })
        .collect()
}

fn about_config(
    wanted: &Wanted,
    params: &Json,
    config: &Json,
    others: &[(&str, &Json)],
) -> Option<String> {
    if !config.is_object() {
        return Some("has a config.json that is no JSON object".into());
    }
    let architecture = config["architectures"][0].as_str();
    let trusted = params["trust_remote_code"] == true;
    let why = match architecture {
        None if wanted.architectures.is_empty() => None,
        None => Some("has a config.json without architectures, which says what it is".to_owned()),
        Some(found) if !trusted && !wanted.takes(found) => Some(format!(
            "is a {found}, which this pipeline does not convert; it takes {}",
            some_of(&wanted.architectures)
        )),
        Some(_) => None,
    };
    let why = why.or_else(|| {
        let other = wanted.config.iter().find(|(field, value)| {
            let found = &config[field.as_str()];
            !found.is_null() && found != *value
        });
        other.map(|(field, value)| {
            format!(
                "has a config.json that says {field}: {}, and this pipeline takes {value}",
                config[field.as_str()]
            )
        })
    })?;
    let elsewhere = others.iter().find(|(_, schema)| {
        self::wanted(schema).is_some_and(|it| *wanted != it && it.fits(architecture, config))
    });
    Some(match elsewhere {
        Some((name, _)) => format!("{why}; {name} does"),
        None => why,
    })
}

fn some_of(words: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut shown = words.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    if words.len() > SHOWN {
        shown.push("…".into());
    }
    shown.join(", ")
}

impl Wanted {
    fn takes(&self, architecture: &str) -> bool {
        self.architectures.is_empty()
            || self
                .architectures
                .iter()
                .any(|known| matches(known, architecture))
    }

    fn fits(&self, architecture: Option<&str>, config: &Json) -> bool {
        architecture.is_some_and(|it| self.takes(it))
            && self.config.iter().all(|(field, value)| {
                let found = &config[field.as_str()];
                found.is_null() || found == value
            })
    }
}

/// `*` at either end stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

fn about_weights(checkpoint: &Checkpoint, params: &Json) -> Option<String> {
    if let Some(broken) = about_shards(checkpoint) {
        return Some(broken);
    }
    if checkpoint
        .at_the_top()
        .any(|name| name.ends_with(".safetensors"))
    {
        return None;
    }
    let pickled: Vec<&str> = checkpoint
        .at_the_top()
        .filter(|name| *name != "training_args.bin" && PICKLES.iter().any(|it| name.ends_with(it)))
        .collect();
    match (pickled.is_empty(), params["allow_pickle"] == true) {
        (false, true) => None,
        (false, false) => Some(format!(
            "has its weights pickled ({}), and opening a pickle can run any code: convert them to safetensors, or have an \
             administrator set allow_pickle",
            pickled.join(", ")
        )),
        (true, _) => Some("has no weights: *.safetensors beside config.json".into()),
    }
}

/// Whether all the files are there that the index names, and as long together as it says.
fn about_shards(checkpoint: &Checkpoint) -> Option<String> {
    let index = match checkpoint.json(INDEX)? {
        Ok(index) => index,
        Err(error) => return Some(format!("has a {INDEX} that is no JSON: {error}")),
    };
    let mut shards: Vec<&str> = index["weight_map"]
        .as_object()?
        .values()
        .filter_map(Json::as_str)
        .collect();
    shards.sort_unstable();
    shards.dedup();
    let missing: Vec<String> = shards
        .iter()
        .filter(|shard| !checkpoint.files.contains_key(**shard))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Some(format!(
            "lacks {} of the {} files that {INDEX} names: {}",
            missing.len(),
            shards.len(),
            some_of(&missing)
        ));
    }
    let bytes: u64 = shards
        .iter()
        .filter_map(|shard| checkpoint.files.get(*shard))
        .sum();
    let said = index["metadata"]["total_size"].as_u64()?;
    (bytes < said).then(|| {
        format!("has {bytes} bytes of weights, and {INDEX} says {said}: a file is cut short; fetch it again")
    })
}

fn about_tokenizer(wanted: &Wanted, checkpoint: &Checkpoint, params: &Json) -> Option<String> {
    let has = checkpoint
        .at_the_top()
        .any(|name| wanted.tokenizer.iter().any(|known| matches(known, name)));
    if wanted.tokenizer.is_empty() || has || !params["tokenizer"].is_null() {
        return None;
    }
    Some(format!(
        "has no tokenizer ({}); copy it beside config.json, or name a folder that has one: tokenizer=@FOLDER",
        wanted.tokenizer.join(", ")
    ))
}

#[cfg(test)]
mod tests;
