#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::*;
use crate::tokenizer::SpecialTokens;

const QWEN2: &str = include_str!("../testdata/qwen2.5.jinja");
const QWEN3: &str = include_str!("../testdata/qwen3.jinja");
const LLAMA3: &str = include_str!("../testdata/llama3.jinja");
const MISTRAL: &str = include_str!("../testdata/mistral.jinja");
const GEMMA: &str = include_str!("../testdata/gemma.jinja");
const PHI3: &str = include_str!("../testdata/phi3.jinja");
const PARTS: &str = include_str!("../testdata/parts.jinja");

fn continuing(source: &str, last: &Value) -> Result<String, TemplateError> {
    let special = SpecialTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        ..SpecialTokens::default()
    };
    let template = ChatTemplate::new(source, special).unwrap();
    let messages = [json!({"role": "user", "content": "Hi"}), last.clone()];
    let extra = json!({"date_string": "26 Jul 2024"});
    template.render_continuing(&messages, None, extra.as_object().unwrap())
}

/// What transformers 5.23's `apply_chat_template(…, continue_final_message=True)` gives for the
/// same templates: those that trim a message cut what stands before it too.
#[test]
fn prompts_end_where_transformers_ends_them() {
    let qwen2 = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n\
                 <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let qwen3 = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
    let llama3 = "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n\
                  <|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
                  <|start_header_id|>assistant<|end_header_id|>\n\n";
    let gemma = "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n";
    let parts = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let phi3 = "<|user|>\nHi<|end|>\n\n<|assistant|>\n";
    let mistral = "<s>[INST] Hi[/INST] ";
    let kept = [(QWEN2, qwen2), (QWEN3, qwen3), (PHI3, phi3), (PARTS, parts)];
    for (source, head) in kept {
        for text in ["{\"a\": ", "Yes \n", ""] {
            let prompt = continuing(source, &json!({"role": "assistant", "content": text}));
            assert_eq!(prompt.unwrap(), format!("{head}{text}"));
        }
    }
    for (source, head) in [(LLAMA3, llama3), (GEMMA, gemma), (MISTRAL, mistral)] {
        for text in ["{\"a\": ", "Yes \n", ""] {
            let prompt = continuing(source, &json!({"role": "assistant", "content": text}));
            assert_eq!(prompt.unwrap(), format!("{head}{text}").trim_end());
        }
    }
}

#[test]
fn the_last_part_is_continued() {
    let parts = json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two "}]);
    let message = json!({"role": "assistant", "content": parts});
    let prompt = continuing(PARTS, &message).unwrap();
    assert!(prompt.ends_with("assistant\nonetwo "), "{prompt}");
    // A template of texts gets them joined, as always.
    let prompt = continuing(QWEN2, &message).unwrap();
    assert!(prompt.ends_with("assistant\none\ntwo "), "{prompt}");
}

#[test]
fn a_message_that_the_template_does_not_show_cannot_be_continued() {
    let message = json!({"role": "assistant", "content": "x"});
    for source in [
        "{{ messages[0].content }}",
        "{% for m in messages %}{{ m.content[:0] }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    ] {
        let refused = continuing(source, &message).unwrap_err();
        assert!(
            matches!(&refused, TemplateError::NotContinued(why) if why.contains("continue_final_message")),
            "{refused}"
        );
    }
    let template = ChatTemplate::new("x", SpecialTokens::default()).unwrap();
    assert!(template.render_continuing(&[], None, &Map::new()).is_err());
    let call = json!({"function": {"name": "f", "arguments": "{}"}});
    let called = json!({"role": "assistant", "content": "", "tool_calls": [call]});
    assert!(continuing(QWEN2, &called).is_err());
}
