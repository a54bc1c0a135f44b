//! From a vocabulary's spelling of a token to the bytes it stands for.
//!
//! Follows the decoders of Hugging Face's `tokenizers`, rewritten token by token:
//! each token's bytes depend only on whether it is the first of the text. That is
//! what makes exact streaming (and exact grammar masks) possible.

use serde_json::Value;
use tokenizers::Tokenizer;

/// How the tokens of one vocabulary become bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoding {
    /// GPT-2's byte-level alphabet: each character stands for a byte.
    ByteLevel,
    /// SentencePiece's: replacements (`▁` → space), `<0xNN>` for single bytes, and
    /// leading characters stripped from the whole text.
    Pieces {
        replace: Vec<(String, String)>,
        byte_fallback: bool,
        strip: Option<Strip>,
    },
    /// Metaspace: the mark is a space, except in the text's first token.
    Metaspace { mark: char, drop_first: bool },
    /// Words with spaces between them; `prefix` (`##`) marks a continuation.
    Words {
        prefix: Option<String>,
        cleanup: bool,
    },
}

/// Up to `count` leading `character`s of the whole text are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) character: char,
    pub(super) count: usize,
}

impl Decoding {
    /// Reads the tokenizer's decoder.
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let Some(decoder) = tokenizer.get_decoder() else {
            return Ok(Self::Words {
                prefix: None,
                cleanup: false,
            });
        };
        let value = serde_json::to_value(decoder).map_err(|e| e.to_string())?;
        Self::parse(&value)
    }

    fn parse(value: &Value) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let kind = text("type").unwrap_or_default();
        match kind {
            "ByteLevel" => Ok(Self::ByteLevel),
            "Metaspace" => Ok(Self::Metaspace {
                mark: text("replacement")
                    .and_then(|t| t.chars().next())
                    .unwrap_or('▁'),
                drop_first: text("prepend_scheme") != Some("never"),
            }),
            "WordPiece" => Ok(Self::Words {
                prefix: text("prefix").map(str::to_owned),
                cleanup: value["cleanup"].as_bool().unwrap_or(true),
            }),
            "Sequence" => {
                let steps = value["decoders"].as_array().map_or(&[][..], Vec::as_slice);
                match steps {
                    [only] => Self::parse(only),
                    _ => Self::sequence(steps),
                }
            }
            "Replace" | "ByteFallback" | "Fuse" | "Strip" => {
                Self::sequence(std::slice::from_ref(value))
            }
            _ => Err(unsupported(kind)),
        }
    }

    /// SentencePiece's decoders: `Replace`*, `ByteFallback`?, `Fuse`?, `Strip`?.
    fn sequence(steps: &[Value]) -> Result<Self, String> {
        let mut replace = Vec::new();
        let mut byte_fallback = false;
        let mut fused = false;
        let mut strip = None;
        for step in steps {
            let kind = step["type"].as_str().unwrap_or_default();
            match kind {
                "Replace" if !fused => {
                    let from = step["pattern"]["String"].as_str();
                    let from = from.ok_or_else(|| unsupported("Replace with a regex"))?;
                    let to = step["content"].as_str().unwrap_or_default();
                    replace.push((from.to_owned(), to.to_owned()));
                }
                "ByteFallback" if !fused => byte_fallback = true,
                "Fuse" => fused = true,
                "Strip" if fused && strip.is_none() && step["stop"].as_u64() == Some(0) => {
                    let count = step["start"].as_u64().unwrap_or(0);
                    strip = Some(Strip {
                        character: step["content"]
                            .as_str()
                            .and_then(|c| c.chars().next())
                            .unwrap_or(' '),
                        count: usize::try_from(count).unwrap_or(usize::MAX),
                    });
                }
                _ => return Err(unsupported(&format!("a sequence with {kind}"))),
            }
        }
        Ok(Self::Pieces {
            replace,
            byte_fallback,
            strip,
        })
    }

    /// Bytes of a token that is not the first of its text.
    pub(super) fn piece(&self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => byte_level(token),
            Self::Pieces {
                replace,
                byte_fallback,
                ..
            } => {
                if let Some(byte) = byte_fallback.then(|| fallback_byte(token)).flatten() {
                    return vec![byte];
                }
                let mut text = token.to_owned();
                for (from, to) in replace {
                    text = text.replace(from.as_str(), to);
                }
                text.into_bytes()
            }
            Self::Metaspace { mark, .. } => token.replace(*mark, " ").into_bytes(),
            Self::Words { prefix, cleanup } => {
                let continued = prefix.as_deref().and_then(|p| token.strip_prefix(p));
                let text = continued.map_or_else(|| format!(" {token}"), str::to_owned);
                clean(text, *cleanup)
            }
        }
    }

    /// Bytes of a text's first token, where they differ from [`Self::piece`].
    pub(super) fn first_piece(&self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::ByteLevel | Self::Pieces { .. } => None,
            Self::Metaspace { mark, drop_first } => {
                drop_first.then(|| token.replace(*mark, "").into_bytes())
            }
            Self::Words { cleanup, .. } => Some(clean(token.to_owned(), *cleanup)),
        }
    }

    /// What is stripped from the beginning of the whole text.
    pub(super) fn strip(&self) -> Option<Strip> {
        match self {
            Self::Pieces { strip, .. } => *strip,
            _ => None,
        }
    }
}

fn unsupported(what: &str) -> String {
    format!(
        "the decoder ({what}) cannot be streamed; supported are ByteLevel, Metaspace, WordPiece \
         and sequences of Replace, ByteFallback, Fuse, Strip"
    )
}

/// `<0xNN>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The inverse of GPT-2's `bytes_to_unicode`. A token with any character outside
/// that alphabet (an added token) stands for itself.
fn byte_level(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Printable bytes stand for themselves; the other 68, in order, for U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let itself = matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let byte = match code {
        _ if itself => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// `WordPiece`'s clean-up of spaces before punctuation, applied to each token as
/// Hugging Face's decoder does.
fn clean(text: String, cleanup: bool) -> Vec<u8> {
    const RULES: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    let text = match cleanup {
        true => RULES
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to)),
        false => text,
    };
    text.into_bytes()
}
