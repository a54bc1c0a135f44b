//! `POST /v1/classify`, in vLLM's form.

use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Response;
use serde::Serialize;
use sluice_engine::encoder::Classification;

use super::ask::Unanswered;
use super::call::Call;
use super::completions::take_prompts;
use super::embeddings::{
    EncoderUsage, IN_FLIGHT, MAX_INPUTS, Metering, check_truncate, encode_options, from_encode,
    input_of, note, take_truncate,
};
use super::fields::Fields;
use super::{ids, json, peers, prompt};
use crate::Body;
use crate::router::LocalModel;

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    data: Vec<Item<'a>>,
    usage: EncoderUsage,
}

#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    /// The likeliest class.
    label: Option<&'a str>,
    probs: Vec<f32>,
    num_classes: usize,
}

/// Answers a classification request.
pub(crate) async fn create(call: &Call) -> Result<Response<Body>, Unanswered> {
    let LocalModel::Encoder(encoder) = &*call.model else {
        return Err(call.wrong_kind("a classifier").into());
    };
    let parsing = prompt::parsing(&call.context, &call.body).await;
    let mut request = Fields::parse(&call.body)?;
    peers::check(&request, peers::CLASSIFY)?;
    let inputs = take_prompts(&mut request, "input", MAX_INPUTS)?;
    drop(parsing);
    request.string("user")?;
    let truncate = check_truncate(take_truncate(&mut request)?, encoder.max_tokens())?;
    let context = &call.context;
    let options = encode_options(context, truncate);
    let inputs: Vec<_> = inputs.into_iter().map(input_of).collect();
    let asked = Instant::now();
    let (metering, encoder) = Metering::of(context, encoder);
    let encoder = &encoder;
    let results: Result<Vec<Classification>, _> = stream::iter(inputs)
        .map(|input| encoder.classify(input, options))
        .buffered(IN_FLIGHT)
        .try_collect()
        .await;
    drop(metering);
    context.outcome.add_target_time(asked.elapsed());
    let results = results.map_err(|error| from_encode(error, "input"))?;
    for result in &results {
        note(context, result.timings);
    }
    let tokens = results.iter().map(|result| result.tokens).sum();
    let item = |(index, result): (usize, Classification)| {
        let best = (0..result.probabilities.len())
            .max_by(|a, b| result.probabilities[*a].total_cmp(&result.probabilities[*b]));
        Item {
            index,
            label: best.and_then(|best| encoder.labels().get(best).map(String::as_str)),
            num_classes: result.probabilities.len(),
            probs: result.probabilities,
        }
    };
    Ok(json::ok(&Answer {
        id: ids::random("classify-"),
        object: "list",
        created: ids::now(),
        model: &call.deployment.name,
        data: results.into_iter().enumerate().map(item).collect(),
        usage: EncoderUsage::new(tokens),
    })?)
}
