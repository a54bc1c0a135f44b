//! Whole generations: what comes out of a model whose K/V and logits lie on a device
//! is what comes out of the same model on the host, however tokens are drawn.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::testing::{fixture, load, ready};
use super::{On, OnnxLm, Outputs, RunEnds, Store, options, prompts};
use crate::backend::onnx::{OnnxOptions, language_model};
use cudarc::driver::sys::CUresult;

use crate::backend::Backend as _;
use crate::cuda::Device;
use crate::cuda::standin::Standin;
use crate::error::{LoadError, SubmitError};
use crate::generator::{Generation, GeneratorHandle, GeneratorOptions};
use crate::request::{
    CacheSalt, GenerateRequest, GenerationEvent, Priority, SampledToken, SamplingParams,
};
use crate::sampler::Sampler;

const SLOTS: u32 = 4;

fn start(on: On) -> GeneratorHandle {
    ready();
    let factory = language_model(&fixture("tiny-llama"), "test", &options(SLOTS, on)).unwrap();
    GeneratorHandle::start("test", factory, GeneratorOptions::default()).unwrap()
}

/// One of every way to draw.
fn ways() -> Vec<SamplingParams> {
    let plain = SamplingParams {
        max_tokens: 12,
        seed: Some(7),
        ..SamplingParams::default()
    };
    vec![
        SamplingParams {
            temperature: 0.0,
            logprobs: Some(5),
            ..plain.clone()
        },
        plain.clone(),
        SamplingParams {
            temperature: 0.7,
            top_k: 9,
            logprobs: Some(0),
            ..plain.clone()
        },
        SamplingParams {
            temperature: 1.3,
            top_p: 0.8,
            min_p: 0.02,
            ..plain.clone()
        },
        SamplingParams {
            presence_penalty: 0.5,
            frequency_penalty: 0.3,
            repetition_penalty: 1.2,
            ..plain.clone()
        },
        SamplingParams {
            temperature: 0.0,
            logit_bias: Arc::from([(5, 100.0), (6, -100.0)]),
            min_tokens: 4,
            stop_token_ids: Arc::from([5]),
            ..plain.clone()
        },
        // More rows than a step's usual ones.
        SamplingParams {
            temperature: 0.0,
            prompt_logprobs: Some(3),
            ..plain
        },
    ]
}

fn submit(handle: &GeneratorHandle, prompt: &[u32], params: SamplingParams) -> Generation {
    handle.submit(request(prompt, params)).unwrap()
}

fn request(prompt: &[u32], params: SamplingParams) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.into(),
        params,
        grammar: None,
        restriction: None,
        priority: Priority::Normal,
        tenant: "test".into(),
        salt: CacheSalt::default(),
        deadline: None,
        whole: false,
    }
}

async fn collect(mut generation: Generation) -> (Vec<Option<SampledToken>>, Vec<SampledToken>) {
    let (mut prompt, mut tokens) = (Vec::new(), Vec::new());
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Prompt(all) => prompt = all,
            GenerationEvent::Token(token) => tokens.push(token),
            GenerationEvent::Failed(reason)
            | GenerationEvent::NotBegun(reason)
            | GenerationEvent::Refused(reason) => {
                panic!("{reason}")
            }
            GenerationEvent::Finished(_) => {}
        }
    }
    (prompt, tokens)
}

/// Waits until nobody holds the device: a generator's thread lets go of it after it has
/// told everyone.
async fn let_go(standin: &Standin) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while standin.alive(0).references > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// The same ids; log-probabilities up to the order in which a sum was rounded.
fn same(one: &SampledToken, other: &SampledToken) -> bool {
    let close = |a: f32, b: f32| a.is_nan() && b.is_nan() || (a - b).abs() < 1e-4;
    let tops = one.top.iter().zip(&other.top);
    one.id == other.id
        && close(one.logprob, other.logprob)
        && one.top.len() == other.top.len()
        && tops.into_iter().all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
}

#[tokio::test]
async fn every_way_to_draw_gives_the_hosts_tokens() {
    let host = start(On::Host { ragged: false });
    for captured in [false, true] {
        let standin = Standin::install(&[1 << 30]);
        let device = start(On::Gpu { captured });
        for (number, params) in ways().into_iter().enumerate() {
            let prompt = &prompts()[number % 4];
            let (prompt_there, there) = collect(submit(&device, prompt, params.clone())).await;
            let (prompt_here, here) = collect(submit(&host, prompt, params)).await;
            assert!(
                there.len() == here.len() && there.iter().zip(&here).all(|(a, b)| same(a, b)),
                "way {number}, captured {captured}:\n{there:?}\n{here:?}"
            );
            assert_eq!(prompt_there.len(), prompt_here.len());
            for (a, b) in prompt_there.iter().zip(&prompt_here) {
                let equal = match (a, b) {
                    (Some(a), Some(b)) => same(a, b),
                    (a, b) => a.is_none() && b.is_none(),
                };
                assert!(equal, "way {number}: {a:?} {b:?}");
            }
        }
        drop(device);
        let_go(&standin).await;
    }
}

/// More sequences than slots, of all lengths, beside one another.
#[tokio::test]
async fn a_crowd_gets_what_each_gets_alone() {
    let standin = Standin::install(&[1 << 30]);
    let greedy = SamplingParams {
        temperature: 0.0,
        max_tokens: 20,
        ..SamplingParams::default()
    };
    let host = start(On::Host { ragged: true });
    for captured in [false, true] {
        let device = start(On::Gpu { captured });
        let crowd: Vec<_> = (0..12)
            .map(|i| submit(&device, &prompts()[i % 4], greedy.clone()))
            .collect();
        for (number, generation) in crowd.into_iter().enumerate() {
            let (_, there) = collect(generation).await;
            let alone = submit(&host, &prompts()[number % 4], greedy.clone());
            let (_, here) = collect(alone).await;
            let ids = |tokens: &[SampledToken]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
            assert_eq!(ids(&there), ids(&here), "{number}, captured {captured}");
        }
        drop(device);
        let_go(&standin).await;
    }
}

/// An illegal access while it generates: who runs is told, who comes is refused, and
/// after a reset of the device the model loads and answers as before.
#[tokio::test]
async fn a_lost_device_ends_the_generator_and_a_reset_brings_it_back() {
    let standin = Standin::install(&[1 << 30]);
    let greedy = SamplingParams {
        temperature: 0.0,
        max_tokens: 16,
        ..SamplingParams::default()
    };
    let prompt = &prompts()[1];
    let device = start(On::Gpu { captured: false });
    let (_, before) = collect(submit(&device, prompt, greedy.clone())).await;
    let mut running = submit(&device, prompt, greedy.clone());
    assert!(matches!(
        running.next().await,
        Some(GenerationEvent::Token(_))
    ));
    standin.break_context(0, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    let mut ended = None;
    while let Some(event) = running.next().await {
        ended = Some(event);
    }
    let reason = match ended {
        Some(GenerationEvent::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.contains("ILLEGAL_ADDRESS"), "{reason}");
    let refused = device.submit(request(prompt, greedy.clone()));
    assert!(
        matches!(refused, Err(SubmitError::Unavailable(_))),
        "{refused:?}"
    );
    drop((device, running));
    let_go(&standin).await;
    Device::reset(0).unwrap();
    let again = start(On::Gpu { captured: false });
    let (_, after) = collect(submit(&again, prompt, greedy)).await;
    let ids = |tokens: &[SampledToken]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
}

fn running(lm: &OnnxLm) -> bool {
    matches!(&lm.store, Store::Device(store) if store.running)
}

/// With ends of a shared stream; the CPU provider, which runs here, does not know of them.
#[test]
fn a_decoding_step_is_left_to_the_device_until_its_logits_are_used() {
    let standin = Standin::install(&[1 << 30]);
    let on = options(SLOTS, On::Gpu { captured: false });
    let mut lm = load(&fixture("tiny-llama"), &on).unwrap();
    let outputs = &mut Outputs::default();
    lm.decode(2, outputs).unwrap();
    assert!(!running(&lm), "on a stream of its own nothing is left");
    lm.ends = RunEnds::new(true, false).unwrap();
    lm.decode(2, outputs).unwrap();
    assert!(running(&lm));
    lm.draw(&mut Sampler::new(), outputs, &[], &mut Vec::new())
        .unwrap();
    assert!(running(&lm), "nothing was drawn, nothing was waited for");
    lm.fetch(0..2, outputs).unwrap();
    assert!(!running(&lm));
    lm.prefill(0..1, 8, outputs).unwrap();
    assert!(!running(&lm), "a prefill is waited for");
    drop(lm);
    assert!(standin.alive(0).is_nothing());
}

#[test]
fn what_was_left_to_the_device_is_waited_for_before_the_next_step() {
    let standin = Standin::install(&[1 << 30]);
    let on = options(SLOTS, On::Gpu { captured: false });
    let mut lm = load(&fixture("tiny-llama"), &on).unwrap();
    let waits = |lm: &mut OnnxLm| {
        let before = standin.calls("cuStreamSynchronize");
        lm.decode(1, &mut Outputs::default()).unwrap();
        standin.calls("cuStreamSynchronize") - before
    };
    let usual = waits(&mut lm);
    lm.ends = RunEnds::new(true, false).unwrap();
    assert_eq!(waits(&mut lm), usual, "the step before left nothing");
    assert_eq!(waits(&mut lm), usual + 1);
    lm.finish().unwrap();
    assert_eq!(waits(&mut lm), usual);
}

#[test]
fn a_model_that_does_not_fit_on_the_device_is_refused_and_nothing_stays() {
    let standin = Standin::install(&[20 << 10]);
    ready();
    let options = OnnxOptions {
        // So that not the plan, but the device refuses.
        memory_budget: Some(1 << 30),
        ..options(SLOTS, On::Gpu { captured: true })
    };
    let refused = load(&fixture("tiny-llama"), &options)
        .map(drop)
        .unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("bytes of device memory were asked for"),
        "{text}"
    );
    assert!(standin.alive(0).is_nothing());
    // Without a budget of its own, the device's free memory is.
    let options = OnnxOptions {
        memory_budget: None,
        ..options
    };
    let refused = load(&fixture("tiny-llama"), &options)
        .map(drop)
        .unwrap_err();
    assert!(matches!(refused, LoadError::DoesNotFit { .. }), "{refused}");
}

#[test]
fn a_hundred_loads_leave_nothing_on_the_device() {
    let standin = Standin::install(&[1 << 30]);
    ready();
    for _ in 0..100 {
        let lm = load(
            &fixture("tiny-llama"),
            &options(SLOTS, On::Gpu { captured: true }),
        );
        assert!(standin.alive(0).bytes > 0);
        drop(lm.unwrap());
        assert!(standin.alive(0).is_nothing());
    }
}
