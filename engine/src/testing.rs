//! What several tests need: tokenizers of every kind, built in memory, and random
//! walks under a grammar.
#![expect(clippy::unwrap_used, reason = "tests")]

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::grammar::{Grammar, Matcher};

use crate::tokenizer::{SpecialTokens, TextTokenizer, TokenizerFiles};

/// GPT-2's alphabet in byte order.
fn alphabet() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u32)
        .map(|byte| {
            let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if printable {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

fn added(first: usize, tokens: &[&str]) -> Value {
    let entry = |(n, content): (usize, &&str)| {
        json!({"id": first + n, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    tokens.iter().enumerate().map(entry).collect()
}

fn build(value: &Value, eos: &str) -> TextTokenizer {
    let inner = Tokenizer::from_bytes(value.to_string()).unwrap();
    let files = TokenizerFiles {
        special: SpecialTokens {
            bos: None,
            eos: Some(eos.to_owned()),
            ..SpecialTokens::default()
        },
        eos_ids: Vec::new(),
    };
    TextTokenizer::new(inner, &files).unwrap()
}

/// Byte-level tokens, then `pieces`, which no text is cut into but which can be drawn, then one
/// special token.
pub(crate) fn byte_level_with(pieces: &[&str], special: &str) -> TextTokenizer {
    let alphabet = alphabet();
    let spell = |bytes: &[u8]| -> String {
        let spelled = bytes.iter().map(|&byte| alphabet[usize::from(byte)]);
        spelled.collect()
    };
    let bytes = (0..=255u8).map(|byte| spell(&[byte]));
    let pieces = pieces.iter().map(|piece| spell(piece.as_bytes()));
    let vocab: serde_json::Map<String, Value> = bytes
        .chain(pieces)
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": true});
    let added = added(vocab.len(), &[special]);
    let description = json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    build(&description, special)
}

/// Byte-level BPE with a few merges, some of which split characters.
pub(crate) fn byte_level() -> TextTokenizer {
    let alphabet = alphabet();
    let mut vocab: serde_json::Map<String, Value> = alphabet
        .iter()
        .enumerate()
        .map(|(byte, c)| (c.to_string(), json!(byte)))
        .collect();
    let spell = |text: &[u8]| -> String { text.iter().map(|&b| alphabet[b as usize]).collect() };
    let mut merges = Vec::new();
    let pairs: [(&[u8], &[u8]); 14] = [
        (b"t", b"h"),
        (b"th", b"e"),
        (b" ", b"the"),
        (b"{", b"\""),
        (b"\"", b":"),
        (b"\"", b","),
        (b"n", b"a"),
        (b"m", b"e"),
        (b"na", b"me"),
        // Parts of Chinese characters and of an emoji.
        (b"\xE4", b"\xBD"),
        (b"\xBD\xA0", b"\xE5"),
        (b"\xBD", b"\xA0"),
        (b"\xF0\x9F", b"\x98"),
        (b"\xF0", b"\x9F"),
    ];
    for (left, right) in pairs {
        for part in [left.to_vec(), right.to_vec(), [left, right].concat()] {
            let next = vocab.len();
            vocab.entry(spell(&part)).or_insert(json!(next));
        }
        merges.push(json!([spell(left), spell(right)]));
    }
    let first = vocab.len();
    let value = json!({
        "version": "1.0",
        "added_tokens": added(first, &["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    build(&value, "<|im_end|>")
}

fn pieces() -> Vec<String> {
    let words = [
        "▁", "▁the", "▁cat", "sat", "s", "▁on", "你", "▁好", "▁▁", "é", "▁<", "x>", "0",
    ];
    (0..=255)
        .map(|byte| format!("<0x{byte:02X}>"))
        .chain(words.map(str::to_owned))
        .collect()
}

/// Llama-2's: BPE with byte fallback, and a decoder that strips one space.
pub(crate) fn byte_fallback() -> TextTokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend(pieces());
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let value = json!({
        "version": "1.0",
        "added_tokens": added(0, &["<unk>", "<s>", "</s>"]),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>",
                  "byte_fallback": true, "fuse_unk": true},
    });
    build(&value, "</s>")
}

/// T5's: Unigram with metaspace.
pub(crate) fn metaspace() -> TextTokenizer {
    let mut vocab: Vec<Value> = vec![json!(["<unk>", 0.0]), json!(["</s>", 0.0])];
    vocab.extend(
        pieces()
            .iter()
            .filter(|p| !p.starts_with("<0x"))
            .map(|p| json!([p, -2.0])),
    );
    let marks = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                       "split": true});
    let value = json!({
        "version": "1.0",
        "added_tokens": added(0, &["<unk>", "</s>"]),
        "pre_tokenizer": marks,
        "decoder": marks,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
    });
    build(&value, "</s>")
}

/// BERT's.
pub(crate) fn word_piece() -> TextTokenizer {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "##é", ".", ",", "!", "'", "n't",
        "'s", "do", "not", "你", "##好", "a",
    ];
    let vocab: serde_json::Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let value = json!({
        "version": "1.0",
        "added_tokens": added(0, &words[..4]),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    });
    build(&value, "[SEP]")
}

/// All of them.
pub(crate) fn all_kinds() -> [(&'static str, TextTokenizer); 4] {
    [
        ("byte-level", byte_level()),
        ("byte fallback", byte_fallback()),
        ("metaspace", metaspace()),
        ("word piece", word_piece()),
    ]
}

/// What a model with random weights would write under `grammar`: any allowed token,
/// and after `steps` the one that closes most. `None` if it does not come to an end.
pub(crate) fn walk(
    tokenizer: &TextTokenizer,
    grammar: &Grammar,
    seed: u64,
    steps: usize,
) -> Option<String> {
    walk_on(tokenizer, &mut grammar.matcher(), seed, steps)
}

/// The same from where `matcher` is.
pub(crate) fn walk_on(
    tokenizer: &TextTokenizer,
    matcher: &mut Matcher,
    seed: u64,
    steps: usize,
) -> Option<String> {
    const CLOSING: [&str; 14] = [
        "\"", "@", "}", "]", ">", "1", "l", "e", "u", "n", ":", ",", "{", "[",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut ids = Vec::new();
    for step in 0..steps * 10 {
        if matcher.is_finished() {
            return Some(tokenizer.decode(&ids, false));
        }
        let mask = matcher.mask().unwrap();
        let allowed: Vec<u32> = (0..u32::try_from(tokenizer.vocab_size()).unwrap())
            .filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1)
            .collect();
        let end = allowed.iter().any(|id| tokenizer.eos().contains(id));
        if end && (step >= steps || random.random_bool(0.5)) {
            return Some(tokenizer.decode(&ids, false));
        }
        let closing = CLOSING.iter().filter_map(|text| {
            let is = |id: &&u32| tokenizer.token_bytes(**id) == text.as_bytes();
            allowed.iter().find(is)
        });
        let closing = if step >= steps {
            closing.take(1).next()
        } else {
            None
        };
        let ordinary: Vec<u32> = allowed
            .iter()
            .copied()
            .filter(|id| !tokenizer.eos().contains(id))
            .collect();
        let token = *closing.or_else(|| ordinary.choose(&mut random))?;
        matcher.accept(token).unwrap();
        ids.push(token);
    }
    None
}
