use serde_json::json;
use sluice_engine::tokenizer::tools::{ToolChoice, ToolFormat, ToolSpec};

use super::super::tools::Tools;
use super::{Piece, Turn};

fn tools(parallel: bool, choice: ToolChoice) -> Tools {
    Tools {
        specs: vec![ToolSpec {
            name: "f".into(),
            parameters: json!({"type": "object"}),
            strict: false,
        }],
        raw: Vec::new(),
        choice,
        parallel,
    }
}

const TWO_CALLS: &str = "a<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\
    <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";

/// The content, the number of calls begun, and the reason.
fn read(tools: &Tools, text: &str) -> (String, usize, &'static str) {
    let mut turn = Turn::new(ToolFormat::Hermes, tools, false);
    let (mut content, mut calls) = (String::new(), 0);
    let mut take = |piece| match piece {
        Piece::Content(text) => content += &text,
        Piece::CallStart { .. } => calls += 1,
        Piece::CallArguments { .. } => {}
    };
    for character in text.chars() {
        turn.push(character.to_string(), &mut take);
    }
    turn.finish(&mut take);
    (content, calls, turn.reason("stop"))
}

#[test]
fn calls_are_counted_and_change_the_reason() {
    let auto = tools(true, ToolChoice::Auto);
    assert_eq!(read(&auto, TWO_CALLS), ("a".into(), 2, "tool_calls"));
    assert_eq!(read(&auto, "text"), ("text".into(), 0, "stop"));
}

#[test]
fn without_parallel_calls_the_first_is_the_only_one() {
    let one = tools(false, ToolChoice::Auto);
    assert_eq!(read(&one, TWO_CALLS), ("a".into(), 1, "tool_calls"));
}

#[test]
fn when_tools_are_off_all_is_text() {
    let off = tools(true, ToolChoice::None);
    assert_eq!(read(&off, TWO_CALLS), (TWO_CALLS.into(), 0, "stop"));
}

#[test]
fn a_cut_is_a_cut_even_after_a_call() {
    let mut turn = Turn::new(ToolFormat::Hermes, &tools(true, ToolChoice::Auto), false);
    turn.push(TWO_CALLS.into(), |_| {});
    assert_eq!(turn.reason("length"), "length");
}
