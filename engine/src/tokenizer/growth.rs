//! How much longer a tokenizer can make a text.
//!
//! A list of replacements that each make ten bytes of one makes terabytes of a short question. The lengths are in the
//! file, so this is found before a text is read.

use serde::Deserialize;
use serde_json::Value;

/// How many times as long a text may become on its way through each part.
const MOST: f64 = 4096.0;

/// The parts of `tokenizer.json` that change texts; what is not named is not kept.
#[derive(Debug, Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
}

/// Looks at a whole `tokenizer.json`.
///
/// # Errors
/// Which part makes texts how many times as long.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let parts: Parts = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let named = [
        ("normalizer", &parts.normalizer),
        ("pre_tokenizer", &parts.pre_tokenizer),
        ("post_processor", &parts.post_processor),
        ("decoder", &parts.decoder),
    ];
    for (name, part) in named {
        let times = growth(part);
        if times > MOST {
            return Err(format!(
                "its {name} can make a text {times:.0} times as long; at most {MOST:.0} is taken"
            ));
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "lengths of texts in a file")]
fn growth(part: &Value) -> f64 {
    let length = |name: &str| part[name].as_str().map_or(0, str::len) as f64;
    match part["type"].as_str().unwrap_or_default() {
        "Sequence" => ["normalizers", "pretokenizers", "processors", "decoders"]
            .iter()
            .filter_map(|name| part[*name].as_array())
            .flatten()
            .map(growth)
            .product(),
        // A pattern may be found at every byte, or where it is empty between them.
        "Replace" => {
            let found = part["pattern"]["String"]
                .as_str()
                .map_or(1, |it| it.len().max(1));
            (length("content") / found as f64).max(1.0) + pad(part)
        }
        "Prepend" => 1.0 + length("prepend"),
        "Metaspace" => 1.0 + length("replacement"),
        "ByteLevel" | "NFD" | "NFKD" | "NFKC" => 4.0,
        "TemplateProcessing" => {
            let pieces = |name: &str| part[name].as_array().map_or(0, Vec::len);
            pieces("single").max(pieces("pair")).max(1) as f64
        }
        _ => 1.0,
    }
}

/// An empty pattern is found once more than there are bytes.
fn pad(part: &Value) -> f64 {
    match part["pattern"]["String"].as_str() {
        Some("") => 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use serde_json::json;

    use super::*;

    fn checked(tokenizer: &Value) -> Result<(), String> {
        check(&serde_json::to_vec(tokenizer).unwrap())
    }

    #[test]
    fn replacements_that_multiply_are_refused() {
        let ten = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
        let by =
            |count: usize| json!({"type": "Sequence", "normalizers": vec![ten.clone(); count]});
        assert!(checked(&json!({"normalizer": by(3), "model": {"vocab": {}}})).is_ok());
        let why = checked(&json!({"normalizer": by(12)})).unwrap_err();
        assert!(
            why.contains("its normalizer can make a text 1000000000000 times"),
            "{why}"
        );
        let decoders = json!({"type": "Sequence", "decoders": vec![ten; 12]});
        assert!(
            checked(&json!({"decoder": decoders}))
                .unwrap_err()
                .contains("decoder")
        );
        let regex =
            json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "a".repeat(5000)});
        assert!(checked(&json!({"normalizer": regex})).is_err());
        let often = json!({"type": "TemplateProcessing", "single": vec![json!({"Sequence": {"id": "A"}}); 5000]});
        assert!(checked(&json!({"post_processor": often})).is_err());
    }

    #[test]
    fn what_models_do_is_taken() {
        let llama = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]});
        assert!(checked(&json!({"normalizer": llama, "decoder": null})).is_ok());
        let bert = json!({"type": "BertNormalizer", "lowercase": true});
        assert!(checked(&json!({"normalizer": bert})).is_ok());
    }
}
