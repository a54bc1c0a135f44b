//! What one key can find out about another's prompts from the prefix cache: nothing.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sluice_engine::backend::fake::{FakeOptions, FakeTokens};
use sluice_engine::generator::GeneratorOptions;

use super::rig::{END, Rig};
use crate::config::{Config, PrefixSharing};

async fn rig(sharing: PrefixSharing) -> Rig {
    let mut config = Config::default();
    config.auth.required = true;
    config.auth.prefix_sharing = sharing;
    let backend = FakeOptions {
        slots: 16,
        tokens: FakeTokens::text("x", END),
        token_time: Duration::from_micros(10),
        ..FakeOptions::default()
    };
    Rig::under(config, backend, GeneratorOptions::default()).await
}

/// Asks once; cached tokens, and the time to the answer's one token.
async fn ask(rig: &Rig, key: &str, text: &str, salt: Option<&str>) -> (u64, f64) {
    let mut body = json!({"model": "fake", "prompt": text, "temperature": 0, "max_tokens": 1});
    if let Some(salt) = salt {
        body["cache_salt"] = Value::from(salt);
    }
    let bearer = format!("Bearer {key}");
    let asked = Instant::now();
    let headers = [("authorization", &*bearer)];
    let answer = rig.post_with("/v1/completions", &headers, body.to_string());
    let answer = answer.await;
    let took = asked.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let cached = &answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    (cached.as_u64().unwrap(), took)
}

fn secret(random: &mut StdRng) -> String {
    let letters: Vec<char> = ('a'..='p').collect();
    let word: String = (0..12).map(|_| *letters.choose(random).unwrap()).collect();
    let digits: u64 = random.random();
    format!("The launch code of project {word} is {digits:020} and nobody else may know it.")
}

/// The largest distance between two distributions (Kolmogorov and Smirnov).
fn distance<T: PartialOrd + Copy>(a: &[T], b: &[T]) -> f64 {
    let share =
        |of: &[T], up_to: T| of.iter().filter(|it| **it <= up_to).count() as f64 / of.len() as f64;
    a.iter()
        .chain(b)
        .map(|at| (share(a, *at) - share(b, *at)).abs())
        .fold(0.0, f64::max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guess_of_anothers_prompt_looks_like_any_other_over_500_pairs() {
    const PAIRS: usize = 500;
    let rig = rig(PrefixSharing::Department).await;
    let mut random = StdRng::seed_from_u64(8);
    let (mut right, mut wrong, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let asked = secret(&mut random);
        ask(&rig, "sk-ada", &asked, None).await;
        let other = secret(&mut random);
        let mut guesses = [(&asked, true), (&other, false)];
        if random.random() {
            guesses.swap(0, 1);
        }
        for (guess, is_right) in guesses {
            let seen = ask(&rig, "sk-bob", guess, None).await;
            if is_right { &mut right } else { &mut wrong }.push(seen);
        }
        own.push(ask(&rig, "sk-ada", &asked, None).await);
    }
    let split = |of: &[(u64, f64)]| -> (Vec<u64>, Vec<f64>) { of.iter().copied().unzip() };
    let (right, wrong, own) = (split(&right), split(&wrong), split(&own));
    // Two equal distributions are further apart than this once in a million times.
    let bound = (-(1e-6_f64 / 2.0).ln() / PAIRS as f64).sqrt();
    let (cached, time) = (distance(&right.0, &wrong.0), distance(&right.1, &wrong.1));
    assert!(cached < bound, "cached_tokens: {cached} beside {bound}");
    assert!(
        time < bound,
        "time to the first token: {time} beside {bound}"
    );
    // The measure sees what it is for: one's own prompt is found again, and faster.
    assert!(distance(&own.0, &wrong.0) > 0.95);
    assert!(distance(&own.1, &wrong.1) > bound);
}

#[tokio::test]
async fn who_shares_is_a_setting() {
    let text = "A text of more than sixteen tokens, which are bytes here.";
    for (sharing, is_shared) in [
        (PrefixSharing::All, true),
        (PrefixSharing::Key, false),
        // Neither key has a department.
        (PrefixSharing::Department, false),
    ] {
        let rig = rig(sharing).await;
        ask(&rig, "sk-ada", text, None).await;
        let (cached, _) = ask(&rig, "sk-bob", text, None).await;
        assert_eq!(cached > 0, is_shared, "{sharing:?}");
        assert!(ask(&rig, "sk-bob", text, None).await.0 > 0, "one's own");
    }
}

#[tokio::test]
async fn a_salt_of_the_clients_own_divides_further() {
    let rig = rig(PrefixSharing::All).await;
    let text = "A text of more than sixteen tokens, which are bytes here.";
    ask(&rig, "sk-ada", text, Some("s")).await;
    assert_eq!(ask(&rig, "sk-ada", text, None).await.0, 0);
    assert_eq!(ask(&rig, "sk-ada", text, Some("t")).await.0, 0);
    assert!(ask(&rig, "sk-ada", text, Some("s")).await.0 > 0);
    // It opens nothing: another key's salt is another's, whoever names it.
    let rig = self::rig(PrefixSharing::Key).await;
    ask(&rig, "sk-ada", text, Some("s")).await;
    assert_eq!(ask(&rig, "sk-bob", text, Some("s")).await.0, 0);
    let empty = json!({"model": "fake", "prompt": "x", "cache_salt": ""}).to_string();
    let headers = [("authorization", "Bearer sk-ada")];
    let refused = rig.post_with("/v1/completions", &headers, empty).await;
    assert_eq!(refused.error()["param"], "cache_salt");
}
