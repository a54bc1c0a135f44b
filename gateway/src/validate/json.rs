//! JSON read for what is there, without keeping it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a value amounts to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Filled {
    /// Absent or `null`.
    #[default]
    None,
    /// An empty string, array or object, or `false`.
    Empty,
    /// A string that is not empty.
    Text,
    /// A number.
    Number,
    /// A filled array or object, or `true`.
    Some,
}

impl Filled {
    /// It says something.
    pub(super) fn is_some(self) -> bool {
        match self {
            Self::None | Self::Empty => false,
            Self::Text | Self::Number | Self::Some => true,
        }
    }

    /// It is there, though it may be empty.
    pub(super) fn is_there(self) -> bool {
        self != Self::None
    }
}

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Filled;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Filled, E> {
                Ok(Filled::None)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Filled, E> {
                Ok(if value { Filled::Some } else { Filled::Empty })
            }

            fn visit_u64<E>(self, _: u64) -> Result<Filled, E> {
                Ok(Filled::Number)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Filled, E> {
                Ok(Filled::Number)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Filled, E> {
                Ok(Filled::Number)
            }

            fn visit_str<E>(self, value: &str) -> Result<Filled, E> {
                Ok(match value.is_empty() {
                    true => Filled::Empty,
                    false => Filled::Text,
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Filled, A::Error> {
                let mut filled = Filled::Empty;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    filled = Filled::Some;
                }
                Ok(filled)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Filled, A::Error> {
                let mut filled = Filled::Empty;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    filled = Filled::Some;
                }
                Ok(filled)
            }
        }
        input.deserialize_any(Any)
    }
}

/// Whether a body's `error` reports one: servers write `null` into answers that are in order.
pub(super) fn is_error(error: Filled, object: &str) -> bool {
    error.is_there() || object == "error"
}
