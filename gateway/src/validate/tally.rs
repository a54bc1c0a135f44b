//! What an answer says of itself: tokens by its own count, why it ended, and how much it says.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sluice_engine::request::FinishReason;

/// What an answer, or as much of it as came, says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The last count of tokens that it gave.
    pub usage: Option<Reported>,
    /// Why the last choice ended.
    pub finish: Option<FinishReason>,
    /// Events of a stream that carried text or calls: each is a token at least.
    pub outputs: usize,
    /// Bytes of text and calls.
    pub bytes: usize,
}

/// A count of tokens as servers write it. What they leave out is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reported {
    /// `prompt_tokens`, or `input_tokens`.
    pub prompt: Option<usize>,
    /// `completion_tokens`, or `output_tokens`.
    pub completion: Option<usize>,
    /// `total_tokens`: all that some servers give for scores.
    pub total: Option<usize>,
    /// Of the prompt, what came from a cache.
    pub cached: Option<usize>,
}

/// What a member of a usage object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Prompt,
    Completion,
    Total,
    Cached,
    /// An object that may hold the tokens from a cache.
    Details,
}

impl Count {
    /// By its name, in OpenAI's or Anthropic's words, or DeepSeek's for its cache.
    pub(super) fn named(key: &[u8]) -> Option<Self> {
        match key {
            b"prompt_tokens" | b"input_tokens" => Some(Self::Prompt),
            b"completion_tokens" | b"output_tokens" => Some(Self::Completion),
            b"total_tokens" => Some(Self::Total),
            b"cached_tokens" | b"prompt_cache_hit_tokens" => Some(Self::Cached),
            b"prompt_tokens_details" | b"input_tokens_details" => Some(Self::Details),
            _ => None,
        }
    }
}

impl Reported {
    /// Of a JSON value; `None` where it is no object.
    pub(super) fn read(json: &str) -> Option<Self> {
        serde_json::from_str::<Maybe>(json).ok()?.0
    }

    pub(super) fn set(&mut self, count: Count, tokens: Option<usize>) {
        match count {
            Count::Prompt => self.prompt = tokens.or(self.prompt),
            Count::Completion => self.completion = tokens.or(self.completion),
            Count::Total => self.total = tokens.or(self.total),
            Count::Cached => self.cached = tokens.or(self.cached),
            Count::Details => {}
        }
    }
}

/// A number of tokens as it is written; more than any answer has is cut off, so that sums of
/// them stay numbers.
pub(super) fn tokens(number: f64) -> Option<usize> {
    // Casts of floats saturate.
    (number >= 0.0).then_some(number as u32 as usize)
}

/// In OpenAI's word for it; `None` where the choice goes on.
pub(super) fn finish_reason(word: &[u8]) -> FinishReason {
    match word {
        b"length" => FinishReason::Length,
        b"abort" => FinishReason::Cancelled,
        _ => FinishReason::Stop,
    }
}

/// An object of counts, or something else that is passed over.
#[derive(Default)]
struct Maybe(Option<Reported>);

impl<'de> Deserialize<'de> for Maybe {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Counts;
        impl<'de> Visitor<'de> for Counts {
            type Value = Maybe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("counts of tokens")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Maybe, A::Error> {
                let mut found = Reported::default();
                while let Some(Name(count)) = map.next_key()? {
                    match count {
                        Some(Count::Details) => {
                            let inner: Maybe = map.next_value()?;
                            let cached = inner.0.and_then(|inner| inner.cached);
                            found.set(Count::Cached, cached);
                        }
                        Some(count) => {
                            let number: Number = map.next_value()?;
                            found.set(count, number.0);
                        }
                        None => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(Maybe(Some(found)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Maybe, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Maybe(None))
            }

            fn visit_unit<E>(self) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Maybe, E> {
                Ok(Maybe(None))
            }
        }
        input.deserialize_any(Counts)
    }
}

struct Name(Option<Count>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(Name(Count::named(name.as_bytes())))
            }
        }
        input.deserialize_identifier(Names)
    }
}

/// A number of tokens; anything else is none.
struct Number(Option<usize>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        // As text, so that every number can be read.
        let raw = <&serde_json::value::RawValue>::deserialize(input)?;
        Ok(Self(raw.get().parse().ok().and_then(tokens)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_in_the_words_of_several_servers() {
        let openai = r#"{"prompt_tokens":20,"completion_tokens":64,"total_tokens":84,
            "prompt_tokens_details":{"audio":{"cached_tokens":9},"cached_tokens":16}}"#;
        let found = Reported {
            prompt: Some(20),
            completion: Some(64),
            total: Some(84),
            cached: Some(16),
        };
        assert_eq!(Reported::read(openai), Some(found));
        for (json, prompt, completion) in [
            (r#"{"input_tokens":3,"output_tokens":4}"#, Some(3), Some(4)),
            (r#"{"total_tokens":56}"#, None, None),
            (r#"{"prompt_tokens":3.0}"#, Some(3), None),
            (
                r#"{"prompt_tokens":-1,"completion_tokens":"7"}"#,
                None,
                None,
            ),
            (
                r#"{"prompt_tokens":null,"x":{"prompt_tokens":9}}"#,
                None,
                None,
            ),
            (r#"{"prompt_tokens":1e300}"#, Some(u32::MAX as usize), None),
        ] {
            let found = Reported::read(json).unwrap_or_default();
            assert_eq!(
                (found.prompt, found.completion),
                (prompt, completion),
                "{json}"
            );
        }
        for nothing in ["null", "7", "\"none\"", "[1]", "true", "-1", "1.5"] {
            assert_eq!(Reported::read(nothing), None, "{nothing}");
        }
    }
}
