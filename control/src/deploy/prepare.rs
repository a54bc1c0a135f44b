//! From an artifact to a warm replica, a step at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_engine::encoder::{EmbedOptions, EncodeOptions, EncoderInput};
use sluice_engine::language::LanguageModel;
use sluice_engine::request::{
    CacheSalt, GenerateRequest, GenerationEvent, Priority, SamplingParams,
};
use sluice_gateway::router::{Deployment as Routed, LocalModel};

use super::driver::StopReason;
use super::replicas::{Blueprint, Need, Replicas};
use super::steps::{Done, Steps};

/// Their names, in order.
pub(super) const STEPS: [&str; 6] = ["fetch", "verify", "convert", "load", "warm_up", "probe"];

/// Fetches, verifies, loads, warms up and probes. The replica is held, pinned, in `replicas`.
pub(super) async fn prepare(
    steps: &Steps<'_>,
    replicas: &Replicas,
    blueprint: &Blueprint,
) -> Result<(), StopReason> {
    let remote = blueprint.settings.is_remote();
    let folder = if remote {
        for name in ["fetch", "verify", "convert"] {
            steps.skip(name, "other servers hold the model").await?;
        }
        std::path::PathBuf::new()
    } else {
        let fetched = steps
            .run("fetch", async {
                let fetched = replicas.fetch(blueprint).await?;
                let detail = json!({"digest": blueprint.digest, "bytes": fetched.bytes});
                Ok(Done(fetched, detail))
            })
            .await?;
        steps
            .run("verify", async {
                let copy = replicas.verify(&blueprint.digest, &fetched.folder).await?;
                let detail = json!({"digest": blueprint.digest, "content": copy.content});
                Ok(Done((), detail))
            })
            .await?;
        steps
            .skip("convert", "the artifact is a model that the engine loads")
            .await?;
        fetched.folder
    };
    let replica = steps
        .run("load", async {
            let (replica, footprint) = replicas.load(blueprint, &folder, Need::Pinned).await?;
            let detail = json!({
                "revision": &*replica.revision,
                "weight_bytes": footprint.weights,
                "kv_bytes": footprint.kv,
                "slots": footprint.slots,
                "context": footprint.capacity,
                "bytes_of_all_models": replicas.in_use(),
            });
            Ok(Done(replica, detail))
        })
        .await?;
    let first = steps
        .run("warm_up", async {
            let answer = ask(&replica).await?;
            let detail = answer.detail.clone();
            Ok(Done(answer, detail))
        })
        .await?;
    steps
        .run("probe", async {
            let second = ask(&replica).await?;
            if first.content != second.content {
                return Err(format!(
                    "the same request gave {:?}, then {:?}",
                    first.content, second.content
                ));
            }
            let mut detail = second.detail;
            // The engine compares with the source model's own words before a replica exists.
            detail["compared_with_source"] = folder.join("sluice_probe.json").is_file().into();
            Ok(Done((), detail))
        })
        .await
}

/// What a replica said to a small request.
#[derive(Debug, Clone)]
struct Answer {
    content: String,
    detail: Value,
}

const TEXT: &str = "Hello, how are you?";
const TOKENS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks something that has one right answer: greedy tokens, an embedding, probabilities.
async fn ask(replica: &Arc<Routed>) -> Result<Answer, String> {
    let began = Instant::now();
    let asked = async {
        match replica.target.model().as_deref() {
            Some(LocalModel::Language(model)) => generate(model).await.map(Some),
            Some(LocalModel::Encoder(encoder)) if encoder.embeds() => {
                let input = EncoderInput::Text(TEXT.into());
                let embedding = encoder.embed(input, EmbedOptions::default()).await;
                let embedding = embedding.map_err(|error| error.to_string())?;
                Ok(Some(rounded(&embedding.vector)))
            }
            Some(LocalModel::Encoder(encoder)) if encoder.scores_pairs() => {
                let documents = [TEXT.to_owned()];
                let scores = encoder.score_pairs(TEXT, &documents, EncodeOptions::default());
                let scores = scores.await.map_err(|error| error.to_string())?;
                let scores: Vec<f32> = scores.iter().map(|pair| pair.score).collect();
                Ok(Some(rounded(&scores)))
            }
            // A classifier's or a function's inputs are its own; the engine ran its shapes when it was loaded.
            // An upstream's are not ours.
            _ => Ok(None),
        }
    };
    let said: Result<Option<String>, String> = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?;
    let said = said?;
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Answer {
        detail: json!({"request_ms": ms, "asked": said.is_some()}),
        content: said.unwrap_or_default(),
    })
}

async fn generate(model: &LanguageModel) -> Result<String, String> {
    let prompt = model
        .tokenizer
        .encode(TEXT, true)
        .map_err(|error| error.to_string())?;
    let request = GenerateRequest {
        prompt: prompt.into(),
        params: SamplingParams {
            temperature: 0.0,
            max_tokens: TOKENS,
            ..SamplingParams::default()
        },
        grammar: None,
        restriction: None,
        priority: Priority::Low,
        tenant: "warm-up".into(),
        salt: CacheSalt::of(&["warm-up"]),
        deadline: None,
        whole: true,
    };
    let mut generation = model
        .generator
        .submit(request)
        .map_err(|error| error.to_string())?;
    let mut ids = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Token(token) => ids.push(token.id),
            GenerationEvent::Failed(why)
            | GenerationEvent::NotBegun(why)
            | GenerationEvent::Refused(why) => return Err(why),
            GenerationEvent::Prompt(_) | GenerationEvent::Finished(_) => {}
        }
    }
    Ok(format!("{ids:?}"))
}

/// To a thousandth: sums may be taken in another order.
fn rounded(numbers: &[f32]) -> String {
    let rounded: Vec<_> = numbers.iter().map(|x| format!("{x:.3}")).collect();
    rounded.join(" ").replace("-0.000", "0.000")
}
