//! Tokenizer and template of the model without weights.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::error::LoadError;
use crate::tokenizer::template::ChatTemplate;
use crate::tokenizer::{SpecialTokens, TextTokenizer, TokenizerFiles};

const END: &str = "<|im_end|>";
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", END];

/// `ChatML`, with tools in the style of Hermes.
const TEMPLATE: &str = "\
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' ~ (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\nCall them in <tool_call></tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n' ~ (call.function | tojson) ~ '\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

/// Ids 0 to 255 are the bytes, then the three special tokens.
pub(super) fn tokenizer() -> Result<TextTokenizer, LoadError> {
    let mut unprintable = 0x100..;
    let spelling = |byte: u32| {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable {
            Some(byte)
        } else {
            unprintable.next()
        };
        code.and_then(char::from_u32)
            .map(|c| (c.to_string(), json!(byte)))
    };
    let vocab: Map<String, Value> = (0..256).filter_map(spelling).collect();
    let added = |(n, content): (usize, &&str)| {
        json!({"id": 256 + n, "content": content, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let added: Value = SPECIAL.iter().enumerate().map(added).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": true});
    let description = json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let inner =
        Tokenizer::from_bytes(description.to_string()).map_err(|e| built_in(e.to_string()))?;
    let files = TokenizerFiles {
        special: special_tokens(),
        eos_ids: Vec::new(),
    };
    TextTokenizer::new(inner, &files).map_err(built_in)
}

pub(super) fn template() -> Result<ChatTemplate, LoadError> {
    ChatTemplate::new(TEMPLATE, special_tokens()).map_err(built_in)
}

fn special_tokens() -> SpecialTokens {
    SpecialTokens {
        eos: Some(END.to_owned()),
        ..SpecialTokens::default()
    }
}

fn built_in(reason: String) -> LoadError {
    LoadError::Folder {
        path: PathBuf::from("(built in)"),
        reason,
    }
}
