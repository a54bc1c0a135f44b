//! An answer in one piece.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::Defect;
use super::json::{Filled, is_error};
use crate::endpoint::Protocol;

/// Judges a body that is there from its first byte to its last. `vectors` says how many it has to bring, where that is known:
/// clients take the third vector for the third input's.
///
/// # Errors
/// What is wrong with it.
pub fn judge(protocol: Protocol, vectors: Option<usize>, body: &[u8]) -> Result<(), Defect> {
    match body.trim_ascii_start().first() {
        None => return Err(Defect::Empty),
        // Scores come as a bare list from some servers.
        Some(b'[') if matches!(protocol, Protocol::Rerank | Protocol::Classify) => {
            let list = serde_json::from_slice::<List>(body).map_err(|_| Defect::Json)?;
            return present(list.count > 0 && list.good);
        }
        Some(_) => {}
    }
    let answer = match serde_json::from_slice::<Answer<'_>>(body) {
        Ok(answer) => answer,
        Err(error) if error.is_data() => return Err(Defect::Shape),
        Err(_) => return Err(Defect::Json),
    };
    if is_error(answer.error, answer.object.as_deref().unwrap_or_default()) {
        return Err(Defect::Error);
    }
    let all = vectors.is_none_or(|wanted| answer.data.count == wanted);
    present(all && answer.has(protocol))
}

/// Whether the first part of a body could still become an answer.
///
/// # Errors
/// It could not, whatever followed.
pub fn judge_beginning(body: &[u8]) -> Result<(), Defect> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => Ok(()),
        Err(error) if error.is_eof() => Ok(()),
        Err(_) => Err(Defect::Json),
    }
}

fn present(is_present: bool) -> Result<(), Defect> {
    match is_present {
        true => Ok(()),
        false => Err(Defect::Shape),
    }
}

/// What may stand at the top of an answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    error: Filled,
    #[serde(default, borrow, deserialize_with = "text")]
    object: Option<Cow<'a, str>>,
    #[serde(default)]
    choices: Choices,
    #[serde(default)]
    data: List,
    #[serde(default)]
    results: List,
    #[serde(default)]
    tokens: Filled,
    #[serde(default)]
    count: Filled,
    #[serde(default)]
    prompt: Filled,
    #[serde(default)]
    text: Filled,
}

impl Answer<'_> {
    fn has(&self, protocol: Protocol) -> bool {
        let listed = |list: &List| list.count > 0 && list.good;
        match protocol {
            Protocol::Chat => self.choices.count > 0 && self.choices.messages,
            Protocol::Completions => self.choices.count > 0 && self.choices.texts,
            Protocol::Embeddings => self.data.count > 0 && self.data.vectors,
            Protocol::Rerank | Protocol::Classify => listed(&self.results) || listed(&self.data),
            Protocol::Tokenize => self.tokens.is_there() || self.count == Filled::Number,
            Protocol::Detokenize => self.prompt.is_there() || self.text.is_there(),
        }
    }
}

/// A string, borrowed where it is written plainly; anything else is passed over.
fn text<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Option<Cow<'de, str>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
            Ok(Some(Cow::Borrowed(value)))
        }

        fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
            Ok(Some(Cow::Owned(value.to_owned())))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    input.deserialize_any(Text)
}

/// Choices of a generation, counted.
#[derive(Default)]
struct Choices {
    count: usize,
    /// Each has a message.
    messages: bool,
    /// Each has a text.
    texts: bool,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    message: Filled,
    #[serde(default)]
    text: Filled,
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Choices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<Choices, E> {
                Ok(Choices::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices, A::Error> {
                let mut choices = Choices {
                    count: 0,
                    messages: true,
                    texts: true,
                };
                while let Some(choice) = seq.next_element::<Choice>()? {
                    choices.count += 1;
                    choices.messages &= choice.message == Filled::Some;
                    choices.texts &= matches!(choice.text, Filled::Text | Filled::Empty);
                }
                Ok(choices)
            }
        }
        input.deserialize_any(Counting)
    }
}

/// A list of vectors, scores or classes, counted.
#[derive(Default)]
struct List {
    count: usize,
    /// Each has a vector.
    vectors: bool,
    /// Each has a score, or a class.
    good: bool,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    embedding: Vector,
    #[serde(default)]
    relevance_score: Filled,
    #[serde(default)]
    score: Filled,
    #[serde(default)]
    probs: Vector,
    #[serde(default)]
    label: Filled,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of results")
            }

            fn visit_unit<E>(self) -> Result<List, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut list = List {
                    count: 0,
                    vectors: true,
                    good: true,
                };
                while let Some(item) = seq.next_element::<Item>()? {
                    list.count += 1;
                    list.vectors &= item.embedding.is_filled;
                    let scored = [item.relevance_score, item.score].contains(&Filled::Number);
                    list.good &=
                        scored || item.probs.is_filled || matches!(item.label, Filled::Text);
                }
                Ok(list)
            }
        }
        input.deserialize_any(Counting)
    }
}

/// A vector of numbers, one of such vectors, or one in base64; not kept.
#[derive(Default)]
struct Vector {
    is_filled: bool,
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Vector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vector of numbers")
            }

            fn visit_unit<E>(self) -> Result<Vector, E> {
                Ok(Vector::default())
            }

            fn visit_str<E>(self, base64: &str) -> Result<Vector, E> {
                let is_filled = !base64.is_empty();
                Ok(Vector { is_filled })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
                let mut is_filled = false;
                while seq.next_element::<Component>()?.is_some() {
                    is_filled = true;
                }
                Ok(Vector { is_filled })
            }
        }
        input.deserialize_any(Counting)
    }
}

/// A number, or a row of them (one vector a token).
struct Component;

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Numeric;
        impl<'de> Visitor<'de> for Numeric {
            type Value = Component;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E>(self, _: u64) -> Result<Component, E> {
                Ok(Component)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Component, E> {
                Ok(Component)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Component, E> {
                Ok(Component)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Component, A::Error> {
                while seq.next_element::<f64>()?.is_some() {}
                Ok(Component)
            }
        }
        input.deserialize_any(Numeric)
    }
}
