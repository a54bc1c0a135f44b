//! The chunks of a streamed chat answer.

use std::sync::Arc;

use bytes::BytesMut;
use sluice_engine::language::LanguageModel;
use sluice_engine::request::SampledToken;
use sluice_engine::text::PromptToken;

use super::logprobs;
use super::turn::{Piece, Turn};
use crate::api::choices::UsageObject;
use crate::api::chunk::ChunkWriter;
use crate::api::json;
use crate::api::stream::ChunkForm;

/// `chat.completion.chunk`.
pub(super) struct ChatChunks {
    pub(super) writer: ChunkWriter,
    pub(super) model: Arc<LanguageModel>,
    /// One a choice.
    pub(super) turns: Vec<Turn>,
    /// What each answer begins with.
    pub(super) echo: Option<String>,
    pub(super) logprobs: bool,
    pub(super) usage: bool,
}

impl ChunkForm for ChatChunks {
    fn prompt(&mut self, _out: &mut BytesMut, _index: usize, _tokens: &[PromptToken]) {}

    fn delta(&mut self, out: &mut BytesMut, index: usize, text: String, tokens: &[SampledToken]) {
        self.open(out, index);
        self.writer.count(index, tokens.len());
        let mut logprobs = None;
        if self.logprobs && !tokens.is_empty() {
            let mut json = BytesMut::new();
            let entries = logprobs::entries(&self.model.tokenizer, tokens);
            json::push(&mut json, &entries);
            logprobs = Some(json);
        }
        let writer = &self.writer;
        self.turns[index].push(text, |piece| {
            write_piece(writer, out, index, &piece, logprobs.take());
        });
        // Tokens whose text is held back still belong to the answer.
        if logprobs.is_some() {
            let nothing = Piece::Content(String::new());
            write_piece(writer, out, index, &nothing, logprobs);
        }
    }

    fn finish(&mut self, out: &mut BytesMut, index: usize, word: &'static str) {
        self.open(out, index);
        let writer = &self.writer;
        let turn = &mut self.turns[index];
        turn.finish(|piece| write_piece(writer, out, index, &piece, None));
        let reason = turn.reason(word);
        writer.chunk(out, index, |out| {
            out.extend_from_slice(br#","delta":{},"logprobs":null,"finish_reason":"#);
            json::push(out, reason);
        });
    }

    fn usage(&mut self, out: &mut BytesMut, usage: UsageObject) {
        if self.usage {
            self.writer.usage(out, &usage);
        }
    }
}

/// A choice's first chunk: the role, no text yet.
const ROLE: &[u8] = br#","delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null"#;

impl ChatChunks {
    fn open(&mut self, out: &mut BytesMut, index: usize) {
        if self.turns[index].open() {
            let role = |out: &mut BytesMut| out.extend_from_slice(ROLE);
            self.writer.chunk(out, index, role);
            if let Some(echo) = &self.echo {
                let piece = Piece::Content(echo.clone());
                write_piece(&self.writer, out, index, &piece, None);
            }
        }
    }
}

fn write_piece(
    writer: &ChunkWriter,
    out: &mut BytesMut,
    index: usize,
    piece: &Piece,
    logprobs: Option<BytesMut>,
) {
    writer.chunk(out, index, |out| {
        out.extend_from_slice(br#","delta":{"#);
        write_delta(out, piece);
        out.extend_from_slice(br#"},"logprobs":"#);
        match logprobs {
            None => out.extend_from_slice(b"null"),
            Some(entries) => {
                out.extend_from_slice(br#"{"content":"#);
                out.extend_from_slice(&entries);
                out.extend_from_slice(br#","refusal":null}"#);
            }
        }
        out.extend_from_slice(br#","finish_reason":null"#);
    });
}

fn write_delta(out: &mut BytesMut, piece: &Piece) {
    match piece {
        Piece::Content(text) => {
            out.extend_from_slice(br#""content":"#);
            json::push(out, text);
        }
        Piece::CallStart { index, id, name } => {
            out.extend_from_slice(br#""tool_calls":[{"index":"#);
            json::push(out, index);
            out.extend_from_slice(br#","id":"#);
            json::push(out, id);
            out.extend_from_slice(br#","type":"function","function":{"name":"#);
            json::push(out, name);
            out.extend_from_slice(br#","arguments":""}}]"#);
        }
        Piece::CallArguments { index, fragment } => {
            out.extend_from_slice(br#""tool_calls":[{"index":"#);
            json::push(out, index);
            out.extend_from_slice(br#","function":{"arguments":"#);
            json::push(out, fragment);
            out.extend_from_slice(b"}}]");
        }
    }
}
