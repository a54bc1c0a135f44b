//! One event of a stream, read for what is there, without keeping it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::Filled;

/// What may stand at the top of an event.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(default)]
    pub(super) error: Filled,
    #[serde(default, borrow, deserialize_with = "plain")]
    pub(super) object: Option<&'a str>,
    #[serde(default, borrow, deserialize_with = "raw")]
    pub(super) model: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "raw")]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) choices: List,
}

/// A value as it is written, also a `null`.
fn raw<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}

/// A string that is written without escapes; anything else is passed over.
fn plain<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de str>, D::Error> {
    struct Plain;
    impl<'de> Visitor<'de> for Plain {
        type Value = Option<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    input.deserialize_any(Plain)
}

/// The choices of one event. There is nearly always one, and it needs no allocation.
#[derive(Default)]
pub(super) struct List {
    first: Option<Choice>,
    more: Vec<Choice>,
}

impl List {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Choice> {
        self.first.iter().chain(&self.more)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Listing;
        impl<'de> Visitor<'de> for Listing {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<List, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let first = seq.next_element()?;
                let mut more = Vec::new();
                while let Some(choice) = seq.next_element()? {
                    more.push(choice);
                }
                Ok(List { first, more })
            }
        }
        input.deserialize_any(Listing)
    }
}

#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    pub(super) index: usize,
    #[serde(default)]
    pub(super) finish_reason: Finish,
    #[serde(default)]
    pub(super) delta: Delta,
    #[serde(default)]
    pub(super) text: Said,
}

/// Why a choice has ended, if it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Finish {
    #[default]
    No,
    Length,
    Abort,
    /// Servers say so in place of an error event.
    Error,
    Other,
}

impl<'de> Deserialize<'de> for Finish {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(match <&RawValue>::deserialize(input)?.get() {
            "null" | "\"\"" | "false" => Self::No,
            "\"length\"" => Self::Length,
            "\"abort\"" => Self::Abort,
            "\"error\"" => Self::Error,
            _ => Self::Other,
        })
    }
}

/// A text, or what servers put in its place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) filled: Filled,
    /// Bytes of all texts in it.
    pub(super) bytes: usize,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Saying;
        impl<'de> Visitor<'de> for Saying {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Said, E> {
                Ok(Said::default())
            }

            fn visit_bool<E>(self, value: bool) -> Result<Said, E> {
                let filled = if value { Filled::Some } else { Filled::Empty };
                Ok(Said { filled, bytes: 0 })
            }

            fn visit_u64<E>(self, _: u64) -> Result<Said, E> {
                Ok(Said::NUMBER)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Said, E> {
                Ok(Said::NUMBER)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Said, E> {
                Ok(Said::NUMBER)
            }

            fn visit_str<E>(self, value: &str) -> Result<Said, E> {
                Ok(Said {
                    filled: match value.is_empty() {
                        true => Filled::Empty,
                        false => Filled::Text,
                    },
                    bytes: value.len(),
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Said, A::Error> {
                let mut said = Said::EMPTY;
                while let Some(item) = seq.next_element::<Said>()? {
                    said.filled = Filled::Some;
                    said.bytes += item.bytes;
                }
                Ok(said)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
                let mut said = Said::EMPTY;
                while let Some((_, value)) = map.next_entry::<IgnoredAny, Said>()? {
                    said.filled = Filled::Some;
                    said.bytes += value.bytes;
                }
                Ok(said)
            }
        }
        input.deserialize_any(Saying)
    }
}

impl Said {
    const EMPTY: Self = Self {
        filled: Filled::Empty,
        bytes: 0,
    };
    const NUMBER: Self = Self {
        filled: Filled::Number,
        bytes: 0,
    };
}

/// What a choice of a chat adds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) there: bool,
    /// It says something beside who speaks.
    pub(super) says: bool,
    /// Bytes of what it says.
    pub(super) bytes: usize,
}

impl<'de> Deserialize<'de> for Delta {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Delta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Delta, E> {
                Ok(Delta::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "snake_case")]
                enum Key {
                    Role,
                    #[serde(other)]
                    Other,
                }
                let mut delta = Delta {
                    there: true,
                    ..Delta::default()
                };
                while let Some(key) = map.next_key()? {
                    let value: Said = map.next_value()?;
                    match key {
                        Key::Role => {}
                        Key::Other => {
                            delta.says |= value.filled.is_some();
                            delta.bytes += value.bytes;
                        }
                    }
                }
                Ok(delta)
            }
        }
        input.deserialize_any(Reading)
    }
}
