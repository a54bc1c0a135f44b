//! The events of a streamed answer, written without building them.
//!
//! A chunk differs from the next in a few bytes. What stays the same is written
//! once per answer; per token there is a copy of it and one escaped string, no
//! [`serde_json::Value`] and no allocation beyond the output buffer's own.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use sluice_engine::request::Usage;

use super::choices::UsageObject;
use super::json;
use super::sampling::StreamOptions;

#[cfg(test)]
mod tests;

/// What all chunks of one answer share.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Identity {
    /// `chatcmpl-…` or `cmpl-…`.
    pub(crate) id: String,
    /// `chat.completion.chunk` or `text_completion`.
    pub(crate) object: &'static str,
    /// Unix seconds.
    pub(crate) created: u64,
    /// The deployment's name.
    pub(crate) model: String,
    /// Told when the request asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<&'static str>,
    /// Changes with the model's revision.
    pub(crate) system_fingerprint: String,
}

/// Writes the chunks of one answer.
#[derive(Debug, Clone)]
pub(crate) struct ChunkWriter {
    /// `data: {"id":…,"choices":[{"index":`
    head: Bytes,
    /// Where `{"index":` begins in `head`.
    choice: usize,
    /// `}]}` and the end of the event, with `"usage":null` when usage will come.
    tail: &'static [u8],
    /// Tokens by choice, of prompt and answer, where each chunk tells them.
    counts: Option<Vec<Usage>>,
}

impl ChunkWriter {
    /// With `include_usage`, each chunk says that its usage comes later, as OpenAI's do, or tells
    /// it. `prompts`: the tokens of each choice's prompt.
    pub(crate) fn new(identity: &Identity, options: StreamOptions, prompts: &[usize]) -> Self {
        let of_prompt = |&prompt| Usage {
            prompt,
            ..Usage::default()
        };
        let mut head = BytesMut::from(&b"data: "[..]);
        json::push(&mut head, identity);
        // The object stays open.
        head.truncate(head.len() - 1);
        head.extend_from_slice(b",\"choices\":[");
        let choice = head.len();
        head.extend_from_slice(b"{\"index\":");
        Self {
            head: head.freeze(),
            choice,
            counts: options
                .continuous_usage
                .then(|| prompts.iter().map(of_prompt).collect()),
            tail: if options.include_usage {
                b"}],\"usage\":null}\n\n"
            } else {
                b"}]}\n\n"
            },
        }
    }

    /// One chunk of one choice: `fields` writes what follows `"index":n`, beginning
    /// with a comma.
    pub(crate) fn chunk(
        &self,
        out: &mut BytesMut,
        index: usize,
        fields: impl FnOnce(&mut BytesMut),
    ) {
        out.extend_from_slice(&self.head);
        json::push(out, &index);
        fields(out);
        match self.counts.as_ref().and_then(|counts| counts.get(index)) {
            None => out.extend_from_slice(self.tail),
            Some(usage) => {
                out.extend_from_slice(b"}],\"usage\":");
                json::push(out, &UsageObject::from(*usage));
                out.extend_from_slice(b"}\n\n");
            }
        }
    }

    /// Counts tokens of a choice, before they are written.
    pub(crate) fn count(&mut self, index: usize, tokens: usize) {
        if let Some(usage) = self
            .counts
            .as_mut()
            .and_then(|counts| counts.get_mut(index))
        {
            usage.completion += tokens;
        }
    }

    /// The last chunk: no choices, the usage.
    pub(crate) fn usage(&self, out: &mut BytesMut, usage: &impl Serialize) {
        out.extend_from_slice(&self.head[..self.choice]);
        out.extend_from_slice(b"],\"usage\":");
        json::push(out, usage);
        out.extend_from_slice(b"}\n\n");
    }
}
