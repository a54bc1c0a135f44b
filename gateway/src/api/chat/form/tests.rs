#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;
use sluice_engine::tokenizer::SpecialTokens;

use super::*;

fn take(value: &Value) -> Result<PromptForm, ApiError> {
    PromptForm::take(&mut Fields::parse(value.to_string().as_bytes())?)
}

fn render(source: &str, request: &Value) -> Result<String, ApiError> {
    let template = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
    let messages = [json!({"role": "assistant", "content": "So "})];
    take(request)?.render(&template, &messages, None)
}

const CHAT: &str = "{% for m in messages %}<{{ m.content }}>{% endfor %}\
                    {% if add_generation_prompt %}A:{% endif %}";

#[test]
fn a_prompt_ends_as_it_is_asked_to() {
    for (request, prompt) in [
        (json!({}), "<So >A:"),
        (json!({"continue_final_message": false}), "<So >A:"),
        (json!({"add_generation_prompt": false}), "<So >"),
        (json!({"continue_final_message": true}), "<So "),
        (
            json!({"continue_final_message": true, "add_generation_prompt": false}),
            "<So ",
        ),
    ] {
        assert_eq!(render(CHAT, &request).unwrap(), prompt, "{request}");
    }
}

#[test]
fn what_a_template_reads_reaches_it() {
    let source = "{{ documents[0].text }} {{ reasoning_effort }} {{ enable_thinking }} {{ x }}";
    let request = json!({"documents": [{"text": "D"}], "reasoning_effort": "low",
        "chat_template_kwargs": {"x": 1}});
    assert_eq!(render(source, &request).unwrap(), "D low True 1");
    let quiet = json!({"reasoning_effort": "none"});
    assert_eq!(render("{{ enable_thinking }}", &quiet).unwrap(), "False");
    let said =
        json!({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": false}});
    assert_eq!(render("{{ enable_thinking }}", &said).unwrap(), "False");
}

#[test]
fn what_it_does_not_read_is_refused_by_name() {
    for (request, param) in [
        (json!({"documents": [{"text": "D"}]}), "documents"),
        (json!({"documents": ["D"]}), "documents[0]"),
        (json!({"reasoning_effort": "low"}), "reasoning_effort"),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
        ),
        (
            json!({"chat_template_kwargs": {"tools": []}}),
            "chat_template_kwargs.tools",
        ),
        (json!({"add_special_tokens": 1}), "add_special_tokens"),
    ] {
        let refused = render(CHAT, &request).unwrap_err();
        assert_eq!(refused.param(), Some(param), "{request}");
    }
    for request in [
        json!({"documents": []}),
        json!({"reasoning_effort": "none"}),
        json!({"reasoning_effort": null}),
    ] {
        assert_eq!(render(CHAT, &request).unwrap(), "<So >A:", "{request}");
    }
}
