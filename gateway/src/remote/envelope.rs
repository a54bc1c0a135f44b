//! The few fields of a request that routing needs, read without building the rest.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memmem};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What a JSON request body says of its model, its form and its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The `model` field, unescaped; `None` when absent or `null`.
    pub model: Option<String>,
    /// Where its JSON value (quotes included) stands in the body.
    pub model_span: Option<Range<usize>>,
    /// `"stream": true`.
    pub stream: bool,
    /// The answer is to be JSON (`response_format`, `guided_json`).
    pub structured: bool,
    /// Where the JSON value of `user` stands in the body.
    user_span: Option<Range<usize>>,
}

/// As a derived struct would be read, but of a field that stands twice the last one
/// counts, as for the endpoints: routing and answering must not differ.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    response_format: Option<&'a RawValue>,
    guided_json: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Key {
            Model,
            Stream,
            User,
            ResponseFormat,
            GuidedJson,
            #[serde(other)]
            Other,
        }
        let mut fields = Fields::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::Model => fields.model = map.next_value()?,
                Key::Stream => fields.stream = map.next_value()?,
                Key::User => fields.user = map.next_value()?,
                Key::ResponseFormat => fields.response_format = map.next_value()?,
                Key::GuidedJson => fields.guided_json = map.next_value()?,
                Key::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(fields)
    }
}

impl Envelope {
    /// Reads a body: checks that it is one JSON object, and builds nothing but
    /// the model's name.
    ///
    /// # Errors
    /// The body is not a JSON object, or `model` is not a string.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        // A derived struct would also be read from an array.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(serde::de::Error::custom("expected a JSON object"));
        }
        let fields: Fields<'_> = serde_json::from_slice(body)?;
        let model = fields.model.map(|raw| serde_json::from_str(raw.get()));
        let span = |raw: &RawValue| {
            // `raw` borrows from `body`, so the distance of their addresses is its offset.
            let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
            start..start + raw.get().len()
        };
        let asks_for_json = |raw: &RawValue| {
            let kinds: [&[u8]; 2] = [b"\"json_object\"", b"\"json_schema\""];
            let found = |kind| memmem::find(raw.get().as_bytes(), kind).is_some();
            kinds.into_iter().any(found)
        };
        Ok(Self {
            model: model.transpose()?,
            model_span: fields.model.map(span),
            stream: fields.stream.is_some_and(|raw| raw.get() == "true"),
            structured: fields.guided_json.is_some()
                || fields.response_format.is_some_and(asks_for_json),
            user_span: fields.user.map(span),
        })
    }

    /// `user`, of the body that this was read from; `None` when it is no string. Copies it
    /// only where it is written with escapes.
    #[must_use]
    pub fn user<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, str>> {
        let json = body.get(self.user_span.clone()?)?;
        let text = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        match memchr(b'\\', text) {
            None => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            Some(_) => serde_json::from_slice(json).ok().map(Cow::Owned),
        }
    }

    /// The body with another model name in the same place.
    #[must_use]
    pub fn with_model(&self, body: &Bytes, model_json: &str) -> Bytes {
        let Some(span) = &self.model_span else {
            return body.clone();
        };
        if &body[span.clone()] == model_json.as_bytes() {
            return body.clone();
        }
        let mut spliced = Vec::with_capacity(body.len() - span.len() + model_json.len());
        spliced.extend_from_slice(&body[..span.start]);
        spliced.extend_from_slice(model_json.as_bytes());
        spliced.extend_from_slice(&body[span.end..]);
        spliced.into()
    }
}
