//! What of a stream a client is to see otherwise, however its bytes are cut.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use sluice_engine::request::FinishReason;

use super::super::events::{DONE, Edits, End, Events, Next};
use super::super::scrub::Scrub;
use crate::endpoint::Protocol;

fn edits(strips_usage: bool) -> Edits {
    let hosts = ["10.0.0.5:8000"];
    Edits {
        model: Some(Bytes::from_static(b"\"desk\"")),
        strips_usage,
        scrub: Some(Arc::new(Scrub::new(
            hosts.into_iter(),
            None,
            Some("theirs"),
        ))),
    }
}

/// What passes of these pieces, and whether the stream came to its end.
fn pass(pieces: &[&[u8]], edits: Edits) -> (String, bool, Events) {
    let mut events = Events::new(Protocol::Chat, edits);
    let mut out = Vec::new();
    for piece in pieces {
        let passed = events.take(Bytes::copy_from_slice(piece));
        out.extend_from_slice(&passed.events);
        if passed.next != Next::More {
            let over = passed.next == Next::Nothing;
            return (String::from_utf8(out).unwrap(), over, events);
        }
    }
    let over = match events.end() {
        Ok(End::Whole) => true,
        Ok(End::Missing(missing)) => {
            out.extend_from_slice(&missing);
            true
        }
        Err(_) => false,
    };
    (String::from_utf8(out).unwrap(), over, events)
}

fn one(event: &str, strips_usage: bool) -> String {
    pass(&[event.as_bytes()], edits(strips_usage)).0
}

#[test]
fn the_name_that_was_asked_for_takes_the_place_of_the_upstreams() {
    for (event, expected) in [
        (
            "data: {\"model\":\"theirs\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
            "data: {\"model\":\"desk\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        ),
        (
            "id: 7\r\ndata:{\"choices\":[{\"delta\":{\"model\":\"x\"}}],\"model\" : \"th\\u0065irs\" }\r\n\r\n",
            "id: 7\r\ndata:{\"choices\":[{\"delta\":{\"model\":\"x\"}}],\"model\" : \"desk\" }\r\n\r\n",
        ),
        (
            ": hello\nid: 7\ndata: {\"model\":\ndata: \"theirs\",\"choices\":\ndata: []}\n\n",
            ": hello\nid: 7\ndata: {\"model\":\ndata: \"desk\",\"choices\":\ndata: []}\n\n",
        ),
        (
            "data: {\"model\":null,\"choices\":[]}\n\n",
            "data: {\"model\":null,\"choices\":[]}\n\n",
        ),
    ] {
        assert_eq!(one(event, false), expected);
    }
}

#[test]
fn usage_that_was_not_asked_for_is_read_and_left_out() {
    let word = "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]";
    let usage = "{\"prompt_tokens\":3,\"completion_tokens\":5}";
    for (json, left) in [
        (format!("{word},\"usage\":null}}"), format!("{word}}}")),
        (format!("{word},\"usage\":{usage}}}"), format!("{word}}}")),
        (
            format!(
                "{{\"usage\" : {usage} , \"model\":\"theirs\",\"choices\":[{{\"delta\":{{}}}}]}}"
            ),
            "{ \"model\":\"desk\",\"choices\":[{\"delta\":{}}]}".to_owned(),
        ),
        // What Azure sends of the prompt is not the usage.
        (
            "{\"choices\":[],\"prompt_filter_results\":[1],\"usage\":null}".to_owned(),
            "{\"choices\":[],\"prompt_filter_results\":[1]}".to_owned(),
        ),
    ] {
        assert_eq!(
            one(&format!("data: {json}\n\n"), true),
            format!("data: {left}\n\n")
        );
    }
    let asked = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n");
    assert_eq!(one(&asked, false), asked);
    let (out, _, events) = pass(&[asked.as_bytes()], edits(true));
    assert_eq!(out, "");
    let found = events.tally().usage.unwrap();
    assert_eq!((found.prompt, found.completion), (Some(3), Some(5)));
}

#[test]
fn an_error_event_tells_nothing_of_the_inside() {
    let word = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let error =
        "event: error\ndata: {\"error\":{\"message\":\"`theirs` at http://10.0.0.5:8000/v1\"}}\n\n";
    let (out, _, _) = pass(&[word.as_bytes(), error.as_bytes()], edits(true));
    let told = "event: error\ndata: {\"error\":{\"message\":\"`desk` at [upstream]\"}}\n\n";
    assert_eq!(out, format!("{word}{told}"));
    // Before the first output it does not pass in other words either.
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let (out, over, _) = pass(&[format!("{role}{error}").as_bytes()], edits(true));
    assert_eq!((out.as_str(), over), (role, false));
    // Nor does what a choice says in place of an error event.
    let ends =
        "data: {\"model\":\"theirs\",\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n";
    let (out, over, _) = pass(&[format!("{word}{ends}").as_bytes()], edits(true));
    assert_eq!((out.as_str(), over), (word, false));
}

#[test]
fn what_is_said_is_measured() {
    let stream = [
        "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}",
        "{\"choices\":[{\"delta\":{\"content\":\"abc\"}},{\"index\":1,\"delta\":{\"reasoning\":\"de\"}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}",
        "{\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}",
    ];
    let text: String = stream.iter().map(|it| format!("data: {it}\n\n")).collect();
    let (_, _, events) = pass(&[text.as_bytes()], edits(true));
    let tally = events.tally();
    assert_eq!((tally.outputs, tally.bytes), (3, 7));
    assert_eq!(tally.finish, Some(FinishReason::Length));
}

const PARTS: [&str; 9] = [
    "data: {\"model\":\"theirs\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n",
    "data: {\"model\":\"theirs\",\"choices\":[{\"delta\":{\"content\":\"中文 \\\"usage\\\":\"}}]}\n\n",
    "data: {\"usage\":{\"prompt_tokens\":1},\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"model\":\"x\"}\n\n",
    "data: {\"model\":\"theirs\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"error\":{\"message\":\"died at 10.0.0.5\"}}\n\n",
    "data: {\"model\":\ndata: \"theirs\",\"choices\":[]}\n\n",
    ": ping\n\n",
    "data: [DONE]\n\n",
];

fn stream_of(parts: &[usize], crlf: bool) -> String {
    let text: String = parts.iter().map(|part| PARTS[*part]).collect();
    match crlf {
        true => text.replace('\n', "\r\n"),
        false => text,
    }
}

/// Every event is JSON or the end, with our name and nothing of the inside.
fn check(out: &str, strips_usage: bool) {
    for event in out.replace('\r', "").split("\n\n") {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let data = lines.collect::<Vec<_>>().join("\n");
        if data.is_empty() || data.trim() == "[DONE]" {
            continue;
        }
        let value: Value = serde_json::from_str(&data).unwrap();
        assert!(
            value["model"].is_null() || value["model"] == "desk",
            "{data}"
        );
        assert!(!strips_usage || value.get("usage").is_none(), "{data}");
        assert!(!data.contains("10.0.0.5"), "{data}");
    }
}

proptest! {
    /// However the bytes are cut into pieces, the same passes, and it parses.
    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(0_usize..PARTS.len(), 0..7),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        crlf in any::<bool>(),
        strips in any::<bool>(),
    ) {
        let text = stream_of(&parts, crlf);
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (out, over, events) = pass(&pieces, edits(strips));
        let (at_once, over_at_once, others) = pass(&[bytes], edits(strips));
        prop_assert_eq!((&out, over), (&at_once, over_at_once));
        prop_assert_eq!(events.tally(), others.tally());
        check(&out, strips);
    }

    /// Wherever a stream is cut off, what has passed are whole events of the beginning of what
    /// would have passed.
    #[test]
    fn a_cut_leaves_whole_events(
        parts in prop::collection::vec(0_usize..PARTS.len(), 1..7),
        cut in any::<prop::sample::Index>(),
        strips in any::<bool>(),
    ) {
        let text = stream_of(&parts, false);
        let mut events = Events::new(Protocol::Chat, edits(strips));
        let piece = Bytes::copy_from_slice(&text.as_bytes()[..cut.index(text.len())]);
        let passed = events.take(piece);
        let out = String::from_utf8(passed.events.to_vec()).unwrap();
        prop_assert!(out.is_empty() || out.ends_with("\n\n"));
        check(&out, strips);
        let (all, _, _) = pass(&[text.as_bytes()], edits(strips));
        prop_assert!(all.starts_with(&out) || all.ends_with(std::str::from_utf8(DONE).unwrap()));
    }
}
