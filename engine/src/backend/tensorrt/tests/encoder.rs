//! Encoders: batches of texts, pooled on the device.

use super::*;
use crate::encoder::{EmbedOptions, Embedding, EncodeError, Encoder, EncoderInput, EncoderOptions};

const WORDS: [&str; 4] = ["alpha", "alpha beta gamma", "kappa", "delta alpha alpha"];

/// The folder of an encoder whose engine gives a token its id times 1 to 16.
fn encoder(setting: &Setting, words: &str) -> PathBuf {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-encoder");
    let folder = setting.folder.path().join("encoder");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    fs::write(
        folder.join("model.plan"),
        format!("standin encoder {words}"),
    )
    .unwrap();
    folder
}

async fn embed(encoder: &Encoder, text: &str) -> Result<Embedding, EncodeError> {
    let options = EmbedOptions {
        normalize: Some(false),
        ..EmbedOptions::default()
    };
    let input = EncoderInput::Text(text.to_owned());
    encoder.embed(input, options).await
}

/// Two workers share an engine, whose weights are there once; batches are pooled on the
/// device.
#[tokio::test]
async fn an_encoder_answers() {
    let setting = setting();
    let folder = encoder(&setting, "most=16 rows=64 tokens=24 weights=4096 memory=64");
    let options = EncoderOptions::default();
    let model = Encoder::load_native("e", &folder, &options, &setting.options).unwrap();
    assert!(model.embeds() && model.dimensions() == 16);
    assert_eq!(setting.standin.alive(0).references, 2, "one a worker");
    let asked = (0..40).map(|at| {
        let model = model.clone();
        tokio::spawn(async move { embed(&model, WORDS[at % 4]).await.unwrap().vector })
    });
    let asked: Vec<_> = asked.collect();
    for (at, answer) in asked.into_iter().enumerate() {
        let text = model.tokenizer().encode(WORDS[at % 4], true).unwrap();
        let mean = text.iter().sum::<u32>() as f32 / text.len() as f32;
        let right: Vec<f32> = (1..=16).map(|by| mean * by as f32).collect();
        let answer = answer.await.unwrap();
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * 1e-5;
        assert!(answer.iter().zip(&right).all(close), "{answer:?} {right:?}");
    }
    drop(model);
    while !setting.standin.alive(0).is_nothing() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_encoder_whose_device_is_lost_is_not_healthy() {
    let setting = setting();
    let folder = encoder(&setting, "most=16 rows=64 tokens=24");
    let options = EncoderOptions::default();
    let model = Encoder::load_native("e", &folder, &options, &setting.options).unwrap();
    let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    setting.standin.break_context(0, broken);
    let error = embed(&model, "alpha").await.unwrap_err();
    assert!(matches!(error, EncodeError::Work(_)), "{error}");
    // It is answered first, and then the worker ends.
    while model.healthy() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(model);
    while setting.standin.alive(0).references > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// An engine takes what it was built for, and the encoder keeps to that.
#[tokio::test]
async fn batches_are_such_as_the_engine_takes() {
    for rows in [1, 2] {
        keeps_to(rows).await;
    }
}

async fn keeps_to(rows: usize) {
    let setting = setting();
    let folder = encoder(&setting, &format!("most=16 rows={rows} tokens=5"));
    let options = EncoderOptions::default();
    let model = Encoder::load_native("e", &folder, &options, &setting.options).unwrap();
    assert_eq!(model.max_tokens(), 5);
    let asked = (0..40).map(|at| {
        let model = model.clone();
        tokio::spawn(async move { embed(&model, WORDS[at % 4]).await })
    });
    for answer in asked.collect::<Vec<_>>() {
        answer.await.unwrap().unwrap();
    }
    let long = embed(&model, "alpha beta gamma delta kappa").await;
    assert!(matches!(long, Err(EncodeError::Submit(_))), "{long:?}");
    assert!(model.healthy());
    drop(model);
    while !setting.standin.alive(0).is_nothing() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[test]
fn an_engine_is_for_tensorrt_alone() {
    let setting = setting();
    let folder = encoder(&setting, "most=16 rows=64 tokens=1");
    let options = EncoderOptions::default();
    let error = Encoder::load("e", &folder, &options).unwrap_err();
    let words = "needs provider = \"tensorrt-native\"";
    assert!(error.to_string().contains(words), "{error}");
    // One that takes no text of more than a token is of no use.
    let error = Encoder::load_native("e", &folder, &options, &setting.options);
    error.unwrap_err();
    setting.nothing_is_left();
}
