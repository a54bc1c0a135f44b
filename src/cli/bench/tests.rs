use serde_json::json;

use super::*;

#[test]
fn text_is_found_in_chat_and_completion_events() {
    let chat = json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
    let completion = json!({"choices": [{"index": 0, "text": "b"}]});
    assert_eq!([text_of(&chat), text_of(&completion)], ["a", "b"]);
}

#[test]
fn events_without_text_are_no_first_token() {
    for event in [
        json!({"choices": []}),
        json!({"choices": [{"delta": {"role": "assistant", "content": null}}]}),
        json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        json!({"usage": {"completion_tokens": 3}}),
    ] {
        assert_eq!(text_of(&event), "", "{event}");
    }
}

#[test]
fn usage_is_taken_from_the_event_that_has_it() {
    let mut sample = Sample::default();
    count_usage(&json!({"choices": [], "usage": null}), &mut sample);
    assert_eq!(sample.completion_tokens, 0);
    let last = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}});
    count_usage(&last, &mut sample);
    assert_eq!((sample.prompt_tokens, sample.completion_tokens), (5, 3));
}
