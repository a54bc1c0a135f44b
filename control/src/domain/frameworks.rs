//! What models are trained and served with, by the words that a model's record takes: a word that is written in three ways
//! finds nothing again.

/// What a model is trained with.
pub const TRAIN: &[&str] = &[
    "pytorch",
    "tensorflow",
    "keras",
    "jax",
    "paddlepaddle",
    "mindspore",
    "scikit-learn",
    "xgboost",
    "lightgbm",
    "other",
];

/// What computes a model when it is served.
pub const INFERENCE: &[&str] = &[
    "onnxruntime",
    "tensorrt",
    "tensorrt-llm",
    "vllm",
    "sglang",
    "llama.cpp",
    "ollama",
    "text-generation-inference",
    "text-embeddings-inference",
    "triton",
    "openvino",
    "other",
];

/// The words with the empty text, which says nothing.
pub fn choices(known: &[&str]) -> Vec<String> {
    std::iter::once(&"")
        .chain(known)
        .map(ToString::to_string)
        .collect()
}

/// Whether `word` may be written. What an earlier version took stays as it is.
///
/// # Errors
/// What would be right.
pub fn check(known: &[&str], word: &str, before: Option<&str>) -> Result<(), String> {
    if word.is_empty() || known.contains(&word) || before == Some(word) {
        return Ok(());
    }
    let shown: String = word.chars().take(64).collect();
    let small = word.to_lowercase();
    let meant = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&small, known), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(match meant {
        Some((_, meant)) => format!("\"{shown}\" is none; did you mean {meant}?"),
        None => format!("\"{shown}\" is none; there are {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_known_or_was_there() {
        assert_eq!(check(TRAIN, "pytorch", None), Ok(()));
        assert_eq!(check(TRAIN, "", None), Ok(()));
        assert_eq!(check(TRAIN, "mxnet", Some("mxnet")), Ok(()));
        let refused = |word: &str| check(TRAIN, word, Some("mxnet")).err().unwrap_or_default();
        assert!(refused("caffe").ends_with("there are pytorch, tensorflow, keras, jax, paddlepaddle, mindspore, scikit-learn, xgboost, lightgbm, other"));
        assert!(refused("PyTorch").ends_with("did you mean pytorch?"));
    }
}
