//! The few fields of a request that routing needs, read without building the rest.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use indexmap::IndexMap;
use memchr::{memchr, memchr2, memmem};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::endpoint::Protocol;
use crate::validate::Form;
use crate::validate::patch::Patch;

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
    /// The answer is to be raw bytes (`encoding_format` of vLLM's embeddings).
    pub binary: bool,
    /// How many inputs there are to embed; `None` where the body does not say.
    inputs: Option<usize>,
    /// Tokens of all that the model is to read, by estimate.
    prompt_tokens: usize,
    /// Whether, and where, the client says what a stream is to end with.
    stream_options: StreamOptions,
    /// Where the JSON value of `user` stands in the body.
    user_span: Option<Range<usize>>,
}

/// What stands in the body as `stream_options`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct StreamOptions {
    /// Where its JSON value stands; `None` when absent.
    span: Option<Range<usize>>,
    /// `"include_usage": true`.
    asks: bool,
}

/// Why a body cannot be sent on.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no JSON object, or a field is of another type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A field that decides where the request goes, or in which form the answer comes,
    /// stands there twice or in other letters: an upstream may read another one than this
    /// server has checked.
    #[error("the field '{0}' must stand in the body once, and in lower case")]
    Ambiguous(&'static str),
    /// `stream` is neither `true` nor `false`: an upstream may read it otherwise.
    #[error("'stream' must be true or false")]
    Stream,
}

#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    response_format: Option<&'a RawValue>,
    guided_json: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    prompt_tokens: usize,
    ambiguous: Option<&'static str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(FieldsVisitor)
    }
}

impl Fields<'_> {
    /// The model is to read this, too.
    fn read(&mut self, value: Option<&RawValue>) {
        let tokens = value.map_or(0, |value| estimate(value.get().as_bytes()));
        self.prompt_tokens = self.prompt_tokens.saturating_add(tokens);
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        let (mut models, mut streams, mut options) = (0, 0, 0);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Model => {
                    models += 1;
                    fields.model = map.next_value()?;
                }
                Key::Stream => {
                    streams += 1;
                    fields.stream = map.next_value()?;
                }
                Key::User => fields.user = map.next_value()?,
                Key::ResponseFormat => fields.response_format = map.next_value()?,
                Key::GuidedJson => fields.guided_json = map.next_value()?,
                Key::EncodingFormat => fields.encoding_format = map.next_value()?,
                Key::Input => {
                    fields.input = map.next_value()?;
                    fields.read(fields.input);
                }
                Key::Read => {
                    let read: Option<&RawValue> = map.next_value()?;
                    fields.read(read);
                }
                Key::StreamOptions => {
                    options += 1;
                    // As it is written, also a `null`.
                    fields.stream_options = Some(map.next_value()?);
                }
                Key::Like(name) => {
                    fields.ambiguous = Some(name);
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if models > 1 {
            fields.ambiguous = Some("model");
        } else if streams > 1 {
            fields.ambiguous = Some("stream");
        } else if options > 1 {
            fields.ambiguous = Some("stream_options");
        }
        Ok(fields)
    }
}

/// A key of the body.
enum Key {
    Model,
    Stream,
    User,
    ResponseFormat,
    GuidedJson,
    EncodingFormat,
    Input,
    /// What else a model reads: its texts are measured.
    Read,
    StreamOptions,
    /// One that some servers take for that.
    Like(&'static str),
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "model" => Key::Model,
                    "stream" => Key::Stream,
                    "user" => Key::User,
                    "response_format" => Key::ResponseFormat,
                    "guided_json" => Key::GuidedJson,
                    "encoding_format" => Key::EncodingFormat,
                    "input" => Key::Input,
                    "messages" | "prompt" | "suffix" | "tools" | "query" | "documents"
                    | "texts" => Key::Read,
                    "stream_options" => Key::StreamOptions,
                    _ if name.eq_ignore_ascii_case("model") => Key::Like("model"),
                    _ if name.eq_ignore_ascii_case("stream") => Key::Like("stream"),
                    _ if name.eq_ignore_ascii_case("stream_options") => Key::Like("stream_options"),
                    _ => Key::Other,
                })
            }
        }
        input.deserialize_identifier(Names)
    }
}

/// About how many tokens a value of a request makes: one for four bytes of text (the names of its
/// members stand for what a chat template adds), one for each number, which is a token's id. What
/// is attached as a `data:` URL counts as one picture, whatever its size.
fn estimate(json: &[u8]) -> usize {
    const BYTES_A_TOKEN: usize = 4;
    const PICTURE: usize = 1024;
    let (mut bytes, mut numbers, mut at) = (0, 0, 0);
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let text = at;
                while let Some(found) = memchr2(b'"', b'\\', &json[at.min(json.len())..]) {
                    at += found + 1;
                    if json[at - 1] == b'"' {
                        break;
                    }
                    // What is escaped is no end.
                    at += 1;
                }
                let end = at.min(json.len());
                bytes += match json[text..end].starts_with(b"data:") {
                    true => PICTURE,
                    false => end - text - 1,
                };
            }
            b'-' | b'0'..=b'9' => {
                numbers += 1;
                let rest = &json[at..];
                at += rest
                    .iter()
                    .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n'))
                    .unwrap_or(rest.len());
            }
            _ => {}
        }
    }
    bytes.div_ceil(BYTES_A_TOKEN) + numbers
}

/// What `stream_options` says; `None` where it is neither an object nor nothing, which is the
/// upstream's to refuse.
fn options_of(json: &str) -> Option<Map<'_>> {
    match json {
        "null" => Some(Map::new()),
        json => serde_json::from_str(json).ok(),
    }
}

type Map<'a> = IndexMap<Cow<'a, str>, &'a RawValue>;

const INCLUDE_USAGE: &str = "include_usage";

/// How many inputs there are: a text or a list of tokens is one, a list of these is as many. `None` where it is neither: that is
/// the upstream's to judge. The texts are passed over, not read: what is wrong in them is no matter of the gateway.
fn count(inputs: &RawValue) -> Option<usize> {
    let json = inputs.get();
    match json.as_bytes().first()? {
        b'"' => Some(1),
        b'[' => match json[1..].trim_ascii_start().as_bytes().first()? {
            b']' => None,
            b'-' | b'0'..=b'9' => Some(1),
            _ => Some(serde_json::from_str::<Vec<IgnoredAny>>(json).ok()?.len()),
        },
        _ => None,
    }
}

impl Envelope {
    /// Reads a body: checks that it is one JSON object, and builds nothing but
    /// the model's name.
    ///
    /// # Errors
    /// The body is not a JSON object, `model` is not a string, or it can be read in more
    /// than one way.
    pub fn parse(body: &[u8]) -> Result<Self, EnvelopeError> {
        // A derived struct would also be read from an array.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(serde_json::Error::custom("expected a JSON object").into());
        }
        let fields: Fields<'_> = serde_json::from_slice(body)?;
        if let Some(name) = fields.ambiguous {
            return Err(EnvelopeError::Ambiguous(name));
        }
        let stream = match fields.stream.map(RawValue::get) {
            Some("true") => true,
            Some("false" | "null") | None => false,
            Some(_) => return Err(EnvelopeError::Stream),
        };
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
        let asks_for_bytes = |raw: &RawValue| raw.get().starts_with("\"bytes");
        let asks_for_usage = |raw: &RawValue| {
            options_of(raw.get())
                .is_some_and(|it| it.get(INCLUDE_USAGE).is_some_and(|it| it.get() == "true"))
        };
        Ok(Self {
            model: model.transpose()?,
            model_span: fields.model.map(span),
            stream,
            structured: fields.guided_json.is_some()
                || fields.response_format.is_some_and(asks_for_json),
            binary: fields.encoding_format.is_some_and(asks_for_bytes),
            inputs: fields.input.and_then(count),
            prompt_tokens: fields.prompt_tokens,
            stream_options: StreamOptions {
                span: fields.stream_options.map(span),
                asks: fields.stream_options.is_some_and(asks_for_usage),
            },
            user_span: fields.user.map(span),
        })
    }

    /// The form in which the answer is to come.
    #[must_use]
    pub fn form(&self, protocol: Protocol) -> Form {
        match protocol {
            Protocol::Chat | Protocol::Completions if self.stream => Form::Events,
            Protocol::Embeddings if self.binary => Form::Opaque,
            Protocol::Chat
            | Protocol::Completions
            | Protocol::Embeddings
            | Protocol::Rerank
            | Protocol::Classify
            | Protocol::Tokenize
            | Protocol::Detokenize => Form::Whole,
        }
    }

    /// How many vectors an answer has to bring; `None` where that is not said, or something else is asked for.
    #[must_use]
    pub fn vectors(&self, protocol: Protocol) -> Option<usize> {
        self.inputs.filter(|_| protocol == Protocol::Embeddings)
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

    /// About how many tokens the prompt has.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Whether the client asks for the usage at the end of its stream.
    #[must_use]
    pub fn asks_for_usage(&self) -> bool {
        self.stream_options.asks
    }

    /// The model's name as the client has written it in the body that this was read from.
    #[must_use]
    pub fn model_json<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        body.get(self.model_span.clone()?)
    }

    /// The body with another model name (a JSON string) in the same place, if there is one.
    #[must_use]
    pub fn for_upstream(&self, body: &Bytes, model: Option<&str>) -> Bytes {
        let mut patch = Patch::default();
        if let Some((span, model)) = self.renaming(body, model) {
            patch.put(body, span, model);
        }
        patch.finish(body, body.len())
    }

    /// The same, with its stream asked for the usage. `None` where the client asks for it itself,
    /// or for something that is nothing known.
    #[must_use]
    pub fn asking_for_usage(&self, body: &Bytes, model: Option<&str>) -> Option<Bytes> {
        if self.stream_options.asks {
            return None;
        }
        let (span, options) = match &self.stream_options.span {
            None => {
                // Behind the bracket: an object that asks for a stream is not empty.
                let first = memchr(b'{', body)? + 1;
                let member = "\"stream_options\":{\"include_usage\":true},";
                (first..first, member.to_owned())
            }
            Some(span) => {
                let json = std::str::from_utf8(body.get(span.clone())?).ok()?;
                let mut options = options_of(json)?;
                // It gives usage in every event, which the client would not see anyway.
                options.shift_remove("continuous_usage_stats");
                let asked = serde_json::value::to_raw_value(&true).ok()?;
                options.insert(INCLUDE_USAGE.into(), &asked);
                (span.clone(), serde_json::to_string(&options).ok()?)
            }
        };
        let options = (span, options.as_bytes());
        let renaming = self.renaming(body, model);
        let mut patch = Patch::default();
        let behind = renaming
            .as_ref()
            .is_some_and(|it| it.0.start < options.0.start);
        let (first, second) = match behind {
            true => (renaming, Some(options)),
            false => (Some(options), renaming),
        };
        for (span, with) in first.into_iter().chain(second) {
            patch.put(body, span, with);
        }
        Some(patch.finish(body, body.len()))
    }

    /// Where another name of the model goes.
    fn renaming<'a>(
        &self,
        body: &[u8],
        model: Option<&'a str>,
    ) -> Option<(Range<usize>, &'a [u8])> {
        let (span, model) = (self.model_span.clone()?, model?.as_bytes());
        (&body[span.clone()] != model).then_some((span, model))
    }
}
