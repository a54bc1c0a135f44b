//! The chunks of a streamed completion.

use bytes::BytesMut;
use sluice_engine::request::SampledToken;
use sluice_engine::text::PromptToken;

use super::writer::{Part, Progress};
use crate::api::choices::UsageObject;
use crate::api::chunk::ChunkWriter;
use crate::api::json;
use crate::api::stream::ChunkForm;

/// `text_completion`.
pub(super) struct TextChunks {
    pub(super) writer: ChunkWriter,
    /// One a choice.
    pub(super) progress: Vec<Progress>,
    pub(super) usage: bool,
}

impl ChunkForm for TextChunks {
    fn prompt(&mut self, out: &mut BytesMut, index: usize, tokens: &[PromptToken]) {
        let part = self.progress[index].prompt(tokens);
        self.write(out, index, &part, None);
    }

    fn delta(&mut self, out: &mut BytesMut, index: usize, text: String, tokens: &[SampledToken]) {
        self.writer.count(index, tokens.len());
        let part = self.progress[index].delta(&text, tokens);
        let evidence = part.logprobs.is_some() || part.token_ids.is_some();
        let nothing = part.text.is_empty() && (!evidence || tokens.is_empty());
        if !nothing {
            self.write(out, index, &part, None);
        }
    }

    fn finish(&mut self, out: &mut BytesMut, index: usize, word: &'static str) {
        let mut part = self.progress[index].delta("", &[]);
        part.logprobs = None;
        self.write(out, index, &part, Some(word));
    }

    fn usage(&mut self, out: &mut BytesMut, usage: UsageObject) {
        if self.usage {
            self.writer.usage(out, &usage);
        }
    }
}

impl TextChunks {
    fn write(&self, out: &mut BytesMut, index: usize, part: &Part, reason: Option<&'static str>) {
        self.writer.chunk(out, index, |out| {
            out.extend_from_slice(br#","text":"#);
            json::push(out, &part.text);
            out.extend_from_slice(br#","logprobs":"#);
            json::push(out, &part.logprobs);
            out.extend_from_slice(br#","finish_reason":"#);
            json::push(out, &reason);
            if let Some(ids) = &part.token_ids {
                out.extend_from_slice(br#","token_ids":"#);
                json::push(out, ids);
            }
            if let Some(ids) = &part.prompt_ids {
                out.extend_from_slice(br#","prompt_token_ids":"#);
                json::push(out, &**ids);
            }
        });
    }
}
