//! The requests that `sluice bench` sends.

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Bench;

/// Which endpoint is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`, streamed.
    Chat,
    /// `/v1/completions`, streamed.
    Completions,
    /// `/v1/embeddings`, one text a request.
    Embed,
}

impl Kind {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embed => "/v1/embeddings",
        }
    }

    pub(super) fn streams(self) -> bool {
        self != Self::Embed
    }

    /// The `kind` that `/v1/models` reports for suitable models.
    pub(super) fn model_kind(self) -> &'static str {
        match self {
            Self::Chat | Self::Completions => "chat",
            Self::Embed => "embedding",
        }
    }
}

/// Prepared prompts and the parameters around them.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(super) kind: Kind,
    model: String,
    prompts: Vec<Value>,
    max_tokens: u32,
    ignore_eos: bool,
    /// Of one request, to its last byte.
    pub(super) timeout: Duration,
}

/// Different generated prompts; enough that prefix reuse does not flatter the server.
const GENERATED: usize = 512;

impl Workload {
    pub(super) fn new(options: &Bench, model: &str) -> Result<Self> {
        let prompts = match &options.input {
            Some(path) => read_prompts(path)?,
            None => {
                let (min, max) = parse_range(&options.words)?;
                let mut random = SplitMix(options.seed);
                (0..GENERATED)
                    .map(|_| Value::String(random.prompt(min, max)))
                    .collect()
            }
        };
        Ok(Self {
            kind: options.kind,
            model: model.to_owned(),
            prompts,
            max_tokens: options.max_tokens,
            ignore_eos: options.ignore_eos,
            timeout: Duration::from_secs_f64(options.timeout),
        })
    }

    /// Body of request `index`; prompts repeat after the last.
    pub(super) fn body(&self, index: usize) -> Value {
        let prompt = &self.prompts[index % self.prompts.len()];
        let mut body = match self.kind {
            Kind::Embed => return json!({"model": self.model, "input": text_of(prompt)}),
            Kind::Completions => json!({"model": self.model, "prompt": text_of(prompt)}),
            Kind::Chat => match prompt.get("messages") {
                Some(messages) => json!({"model": self.model, "messages": messages}),
                None => {
                    json!({"model": self.model, "messages": [{"role": "user", "content": text_of(prompt)}]})
                }
            },
        };
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        body["temperature"] = 0.into();
        body["max_tokens"] = self.max_tokens.into();
        if self.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        body
    }
}

fn text_of(prompt: &Value) -> &Value {
    let field = ["prompt", "input", "text"]
        .iter()
        .find_map(|name| prompt.get(name));
    field
        .or_else(|| prompt.pointer("/messages/0/content"))
        .unwrap_or(prompt)
}

fn read_prompts(path: &std::path::Path) -> Result<Vec<Value>> {
    let file = std::fs::File::open(path).with_context(|| format!("--input {}", path.display()))?;
    let mut prompts = Vec::new();
    for (number, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            let value = serde_json::from_str(&line).with_context(|| {
                format!("--input {}, line {}: not JSON", path.display(), number + 1)
            })?;
            prompts.push(value);
        }
    }
    if prompts.is_empty() {
        bail!("--input {} holds no prompts", path.display());
    }
    Ok(prompts)
}

fn parse_range(text: &str) -> Result<(usize, usize)> {
    let parts = text
        .split_once("..")
        .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match parts {
        Some((min, max)) if 1 <= min && min <= max => Ok((min, max)),
        _ => bail!("--words must be MIN..MAX with 1 <= MIN <= MAX, got `{text}`"),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): prompts need variety, not a dependency.
struct SplitMix(u64);

const WORDS: [&str; 40] = [
    "printer", "laptop", "password", "reset", "network", "drive", "slow", "urgent", "the",
    "please", "cannot", "reach", "since", "morning", "office", "floor", "email", "account",
    "locked", "ticket", "server", "backup", "failed", "access", "shared", "folder", "screen",
    "monitor", "VPN", "Wi-Fi", "meeting", "room", "update", "install", "error", "message", "phone",
    "user", "again", "help",
];

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Log-uniform length, so that short prompts dominate, as in real traffic.
    fn prompt(&mut self, min: usize, max: usize) -> String {
        let unit = self.next() as f64 / u64::MAX as f64;
        let ratio = max as f64 / min as f64;
        let count = (min as f64 * ratio.powf(unit)).round() as usize;
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}
