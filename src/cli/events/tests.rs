#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Every event of a whole stream, or the error that ended it.
fn events(stream: &[u8]) -> Result<Vec<Event>> {
    let mut parser = EventParser::default();
    parser.push(stream);
    drain(&mut parser)
}

fn drain(parser: &mut EventParser) -> Result<Vec<Event>> {
    let mut found = Vec::new();
    while let Some(event) = parser.next()? {
        found.push(event);
    }
    found.extend(parser.finish()?);
    Ok(found)
}

fn json_events(values: &[Value]) -> Vec<Event> {
    values.iter().cloned().map(Event::Json).collect()
}

#[test]
fn comments_and_other_fields_are_no_events() {
    let stream = b": ping\n\nid: 7\nretry: 10\n\n: again\ndata: {\"a\":1}\n\n:\n\n";
    assert_eq!(events(stream).unwrap(), json_events(&[json!({"a": 1})]));
}

#[test]
fn the_space_after_the_colon_is_optional() {
    let stream = b"data:{\"a\":1}\n\ndata: {\"a\":2}\n\ndata:[DONE]\n\n";
    let found = events(stream).unwrap();
    assert_eq!(found[..2], json_events(&[json!({"a": 1}), json!({"a": 2})]));
    assert_eq!(found[2], Event::Done);
}

#[test]
fn data_over_several_lines_are_one_document() {
    let stream = b"event: message\ndata: {\"text\":\ndata: \"x\"\ndata: }\n\n";
    assert_eq!(
        events(stream).unwrap(),
        json_events(&[json!({"text": "x"})])
    );
}

#[test]
fn carriage_returns_end_lines_too() {
    let stream = b"data: {\"a\":1}\r\n\r\ndata: [DONE]\r\n\r\n";
    let expected = [Event::Json(json!({"a": 1})), Event::Done];
    assert_eq!(events(stream).unwrap(), expected);
}

#[test]
fn errors_are_told_in_the_servers_words() {
    for stream in [
        &b"data: {\"error\":{\"message\":\"too long\",\"code\":400}}\n\n"[..],
        b"data: {\"error\":\"too long\"}\n\n",
        b"event: error\ndata: {\"message\":\"too long\"}\n\n",
        b"event: error\ndata: too long\n\n",
    ] {
        assert_eq!(events(stream).unwrap_err().to_string(), "too long");
    }
    let without_words = events(b"data: {\"error\":{\"code\":7}}\n\n").unwrap_err();
    assert!(without_words.to_string().contains('7'), "{without_words}");
}

#[test]
fn a_null_error_is_none() {
    let value = json!({"error": null, "choices": []});
    let stream = format!("data: {value}\n\n");
    assert_eq!(events(stream.as_bytes()).unwrap(), json_events(&[value]));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    let stream = b"data: {\"a\":\"\xff\"}\n\n";
    assert_eq!(
        events(stream).unwrap(),
        json_events(&[json!({"a": "\u{fffd}"})])
    );
}

#[test]
fn what_is_not_json_is_refused() {
    assert!(events(b"data: {\"a\":\n\n").is_err());
}

#[test]
fn the_end_of_the_stream_completes_the_last_event() {
    assert_eq!(
        events(b"data: {\"a\":1}").unwrap(),
        json_events(&[json!({"a": 1})])
    );
    assert_eq!(events(b"").unwrap(), []);
}

proptest! {
    #[test]
    fn cuts_between_reads_change_nothing(cuts in proptest::collection::vec(0usize..90, 0..8)) {
        let stream = b": hi\r\n\r\ndata: {\"a\":\r\ndata: \"\xc3\xa9\"}\r\n\r\ndata:{\"b\":[]}\n\ndata: [DONE]\n\n";
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut parser = EventParser::default();
        let mut found = Vec::new();
        for pair in cuts.windows(2) {
            parser.push(&stream[pair[0]..pair[1]]);
            while let Some(event) = parser.next().unwrap() {
                found.push(event);
            }
        }
        prop_assert_eq!(found, events(stream).unwrap());
    }
}

#[test]
fn a_record_may_have_an_error_of_its_own() {
    let mut parser = EventParser::of_records();
    parser.push(b"event: task\ndata: {\"state\":\"failed\",\"error\":{\"message\":\"why\"}}\n\n");
    let event = parser.next().unwrap();
    assert!(matches!(event, Some(Event::Json(record)) if record["error"]["message"] == "why"));
}
