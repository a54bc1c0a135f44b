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

#[test]
fn a_run_without_a_single_answer_is_a_failure() {
    let failed = || Sample {
        error: Some("refused".to_owned()),
        ..Sample::default()
    };
    assert_eq!(all_failed(&[failed(), failed()]), Some("refused"));
    assert_eq!(all_failed(&[failed(), Sample::default()]), None);
    assert_eq!(all_failed(&[Sample::default(), failed()]), None);
    assert_eq!(all_failed(&[]), None);
}
