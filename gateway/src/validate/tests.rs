#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod passing;
mod scan;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::events::{Edits, End, Events, MAX_EVENT, Next};
use super::*;
use crate::endpoint::Protocol;

fn headers(kind: &str, encoding: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !kind.is_empty() {
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
    }
    if !encoding.is_empty() {
        headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
    }
    headers
}

#[test]
fn a_head_announces_what_it_may() {
    let json = "application/json; charset=utf-8";
    let sse = "text/event-stream; charset=utf-8";
    let broken = Head::Broken;
    for (status, kind, encoding, form, judged) in [
        (200, json, "", Form::Whole, Head::Whole),
        (201, "Application/JSON", "", Form::Whole, Head::Whole),
        (
            200,
            "application/problem+json",
            "",
            Form::Whole,
            Head::Whole,
        ),
        (200, "", "", Form::Whole, Head::Whole),
        (200, json, "identity", Form::Whole, Head::Whole),
        (200, sse, "", Form::Events, Head::Events),
        (
            200,
            "application/octet-stream",
            "",
            Form::Opaque,
            Head::Opaque,
        ),
        (200, json, "", Form::Opaque, Head::Whole),
        (200, "text/html", "", Form::Whole, broken(Defect::MediaType)),
        (
            200,
            "text/plain",
            "",
            Form::Whole,
            broken(Defect::MediaType),
        ),
        (200, sse, "", Form::Whole, broken(Defect::MediaType)),
        (200, json, "", Form::Events, broken(Defect::MediaType)),
        (200, "", "", Form::Events, broken(Defect::MediaType)),
        (
            200,
            "application/octet-stream",
            "",
            Form::Whole,
            broken(Defect::MediaType),
        ),
        (200, json, "gzip", Form::Whole, broken(Defect::Encoding)),
        (101, json, "", Form::Whole, broken(Defect::Status)),
        (204, json, "", Form::Whole, broken(Defect::Status)),
        (205, json, "", Form::Whole, broken(Defect::Status)),
        (206, json, "", Form::Whole, broken(Defect::Status)),
        (301, json, "", Form::Whole, broken(Defect::Status)),
        (302, json, "", Form::Whole, broken(Defect::Status)),
        (304, json, "", Form::Whole, broken(Defect::Status)),
        (307, sse, "", Form::Events, broken(Defect::Status)),
        (600, json, "", Form::Whole, broken(Defect::Status)),
        (999, json, "", Form::Whole, broken(Defect::Status)),
        (400, json, "", Form::Whole, Head::Refusal(Refusal::Request)),
        (
            405,
            "text/html",
            "",
            Form::Whole,
            Head::Refusal(Refusal::Request),
        ),
        (413, json, "", Form::Events, Head::Refusal(Refusal::Request)),
        (422, json, "", Form::Whole, Head::Refusal(Refusal::Request)),
        (401, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (402, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (403, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (404, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (408, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (429, json, "", Form::Whole, Head::Refusal(Refusal::Account)),
        (500, "text/html", "", Form::Whole, Head::Failure),
        (599, json, "", Form::Whole, Head::Failure),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let found = head(status, &headers(kind, encoding), form);
        assert_eq!(found, judged, "{status} {kind} {encoding} {form:?}");
    }
}

fn judged(answers: &[(Protocol, &str, Result<(), Defect>)]) {
    for (protocol, body, judged) in answers {
        let found = whole::judge(*protocol, None, body.as_bytes());
        assert_eq!(found, *judged, "{protocol:?} {body}");
    }
}

#[test]
fn each_input_has_its_vector() {
    let two = r#"{"data": [{"index": 0, "embedding": [0.5]}, {"index": 1, "embedding": "AAA="}]}"#;
    for (wanted, judged) in [
        (None, Ok(())),
        (Some(2), Ok(())),
        (Some(1), Err(Defect::Shape)),
        (Some(3), Err(Defect::Shape)),
    ] {
        let found = whole::judge(Protocol::Embeddings, wanted, two.as_bytes());
        assert_eq!(found, judged, "{wanted:?}");
    }
}

#[test]
fn an_answer_in_one_piece_has_what_its_protocol_promises() {
    let chat = Protocol::Chat;
    let text = Protocol::Completions;
    let vectors = Protocol::Embeddings;
    let ok = Ok(());
    judged(&[
        (
            chat,
            r#"{"choices":[{"message":{"role":"assistant","content":"a"}}]}"#,
            ok,
        ),
        (
            chat,
            r#"{"error":null,"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#,
            ok,
        ),
        (
            chat,
            " \n{\"choices\":[{\"message\":{\"content\":\"\"}}]}\n",
            ok,
        ),
        (text, r#"{"choices":[{"text":""},{"text":"b"}]}"#, ok),
        (
            vectors,
            r#"{"data":[{"index":0,"embedding":[0.1,-2,3e-4]}]}"#,
            ok,
        ),
        (vectors, r#"{"data":[{"embedding":"AACAPw=="}]}"#, ok),
        (vectors, r#"{"data":[{"embedding":[[0.1],[0.2]]}]}"#, ok),
        (
            Protocol::Rerank,
            r#"{"results":[{"index":0,"relevance_score":0}]}"#,
            ok,
        ),
        (Protocol::Rerank, r#"[{"index":0,"score":0.9}]"#, ok),
        (
            Protocol::Classify,
            r#"{"data":[{"label":"a","probs":[0.5,0.5]}]}"#,
            ok,
        ),
        (Protocol::Tokenize, r#"{"count":2,"tokens":[1,2]}"#, ok),
        (Protocol::Tokenize, r#"{"tokens":[]}"#, ok),
        (Protocol::Detokenize, r#"{"prompt":""}"#, ok),
    ]);
}

#[test]
fn what_lacks_something_is_no_answer() {
    let chat = Protocol::Chat;
    let text = Protocol::Completions;
    let vectors = Protocol::Embeddings;
    let shape = Err(Defect::Shape);
    judged(&[
        (chat, "", Err(Defect::Empty)),
        (chat, " \r\n", Err(Defect::Empty)),
        (chat, "<html>", Err(Defect::Json)),
        (chat, "null", shape),
        (chat, "OK", Err(Defect::Json)),
        (chat, r#"{"choices":[{"message":{"cont"#, Err(Defect::Json)),
        (
            chat,
            r#"{"choices":[{"message":{"content":"a"}}]}{}"#,
            Err(Defect::Json),
        ),
        (chat, r#"data: {"choices":[]}"#, Err(Defect::Json)),
        (
            vectors,
            r#"{"data":[{"embedding":[NaN]}]}"#,
            Err(Defect::Json),
        ),
        (
            chat,
            r#"{"error":{"message":"engine died"}}"#,
            Err(Defect::Error),
        ),
        (
            chat,
            r#"{"error":"overloaded","choices":[{"message":{"content":"a"}}]}"#,
            Err(Defect::Error),
        ),
        (
            chat,
            r#"{"object":"error","message":"no","code":40303}"#,
            Err(Defect::Error),
        ),
        (vectors, r#"{"error":{"code":500}}"#, Err(Defect::Error)),
        (chat, "{}", shape),
        (chat, "[]", shape),
        (chat, r#"{"choices":[]}"#, shape),
        (chat, r#"{"choices":null}"#, shape),
        (chat, r#"{"choices":{}}"#, shape),
        (chat, r#"{"choices":[{}]}"#, shape),
        (chat, r#"{"choices":[{"message":{}}]}"#, shape),
        (chat, r#"{"choices":[{"message":"a"}]}"#, shape),
        (chat, r#"{"choices":[{"text":"a"}]}"#, shape),
        (text, r#"{"choices":[{"message":{"content":"a"}}]}"#, shape),
        (text, r#"{"choices":[{"text":null}]}"#, shape),
        (vectors, r#"{"data":[]}"#, shape),
        (vectors, r#"{"data":[{"embedding":[]}]}"#, shape),
        (vectors, r#"{"data":[{"embedding":""}]}"#, shape),
        (vectors, r#"{"data":[{"embedding":[null]}]}"#, shape),
        (vectors, r#"{"data":[{"embedding":["a"]}]}"#, shape),
        (vectors, r#"{"data":[{"embedding":[1]},{}]}"#, shape),
        (
            vectors,
            r#"{"choices":[{"message":{"content":"a"}}]}"#,
            shape,
        ),
        (Protocol::Rerank, r#"{"results":[]}"#, shape),
        (Protocol::Rerank, r#"{"results":[{"index":0}]}"#, shape),
        (
            Protocol::Rerank,
            r#"{"results":[{"relevance_score":"high"}]}"#,
            shape,
        ),
        (Protocol::Rerank, "[]", shape),
        (Protocol::Classify, r#"{"data":[{}]}"#, shape),
        (Protocol::Tokenize, r#"{"choices":[]}"#, shape),
        (Protocol::Detokenize, "{}", shape),
    ]);
}

#[test]
fn the_beginning_of_an_answer_is_plausible_or_not() {
    for (beginning, is_plausible) in [
        (r#"{"data":[{"embedding":[0.1,"#, true),
        (r#"{"data":[{"embedding":"AAA"#, true),
        (r#"{"data":[]}"#, true),
        ("<html>", false),
        (r#"{"data":[}"#, false),
    ] {
        let judged = whole::judge_beginning(beginning.as_bytes());
        assert_eq!(judged.is_ok(), is_plausible, "{beginning}");
    }
}

const ROLE: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const WORD: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
const FAULT: &str = "data: {\"error\":{\"message\":\"engine died\"}}\n\n";

/// What passes of a stream that comes in these pieces and then ends, and how that ends.
fn stream(protocol: Protocol, pieces: &[&[u8]]) -> (String, Result<bool, Defect>) {
    let mut events = Events::new(protocol, Edits::default());
    let mut out = Vec::new();
    for piece in pieces {
        let passed = events.take(Bytes::copy_from_slice(piece));
        out.extend_from_slice(&passed.events);
        let ended = match passed.next {
            Next::More => continue,
            Next::Nothing => Ok(false),
            Next::Told => Err(Defect::Error),
            Next::Broken(defect) => Err(defect),
        };
        return (String::from_utf8(out).unwrap(), ended);
    }
    let ended = events.end().map(|end| match end {
        End::Whole => false,
        End::Missing(missing) => {
            out.extend_from_slice(&missing);
            true
        }
    });
    (String::from_utf8(out).unwrap(), ended)
}

fn chat(text: &str) -> (String, Result<bool, Defect>) {
    stream(Protocol::Chat, &[text.as_bytes()])
}

#[test]
fn a_stream_passes_to_its_end() {
    let done = "data: [DONE]\n\n";
    let whole = [ROLE, WORD, STOP, USAGE, done].concat();
    assert_eq!(chat(&whole), (whole.clone(), Ok(false)));
    let crlf = whole.replace('\n', "\r\n");
    assert_eq!(chat(&crlf), (crlf.clone(), Ok(false)));
    let plain = whole.replace("data: ", "data:");
    assert_eq!(chat(&plain), (plain.clone(), Ok(false)));
    let pinged = [
        ": ping\n\n",
        ROLE,
        ": ping\n\n",
        WORD,
        "event: x\nid: 1\n",
        STOP,
        done,
    ]
    .concat();
    assert_eq!(chat(&pinged), (pinged.clone(), Ok(false)));
    // Without a reason to finish, but with the end.
    let bare = [ROLE, WORD, done].concat();
    assert_eq!(chat(&bare), (bare.clone(), Ok(false)));
    // What comes behind the end is nothing.
    assert_eq!(chat(&[&*whole, WORD].concat()), (whole, Ok(false)));
}

#[test]
fn a_stream_whose_choices_have_ended_is_given_its_end() {
    for begun in [
        [ROLE, WORD, STOP].concat(),
        [ROLE, WORD, STOP, USAGE].concat(),
    ] {
        let mended = format!("{begun}data: [DONE]\n\n");
        assert_eq!(chat(&begun), (mended.clone(), Ok(true)));
        // The last line ends the stream without an empty one behind it.
        assert_eq!(chat(begun.trim_end()), (mended.clone(), Ok(true)));
        let short = format!("{begun}data: [DONE]");
        assert_eq!(chat(&short), (mended, Ok(true)));
    }
    let other = STOP.replace("\"index\":0", "\"index\":1");
    let one_of_two = [WORD, &WORD.replace("\"index\":0", "\"index\":1"), STOP].concat();
    assert_eq!(
        chat(&one_of_two),
        (one_of_two.clone(), Err(Defect::Unfinished))
    );
    let both = [&*one_of_two, &other].concat();
    assert_eq!(chat(&both).1, Ok(true));
}

#[test]
fn what_is_no_stream_is_told() {
    let done = "data: [DONE]\n\n";
    for (text, passed, defect) in [
        ("", "", Defect::Empty),
        (": ping\n\n", ": ping\n\n", Defect::Empty),
        (done, "", Defect::Empty),
        (&*[USAGE, done].concat(), USAGE, Defect::Shape),
        (
            "<html><body>\n\n</body></html>",
            "<html><body>\n\n",
            Defect::Unfinished,
        ),
        (FAULT, "", Defect::Error),
        (&*[ROLE, FAULT, done].concat(), ROLE, Defect::Error),
        (
            "event: error\ndata: {\"message\":\"x\"}\n\n",
            "",
            Defect::Error,
        ),
        (
            "data: {\"object\":\"error\",\"message\":\"x\"}\n\n",
            "",
            Defect::Error,
        ),
        (
            &*[ROLE, WORD, FAULT, done].concat(),
            &*[ROLE, WORD, FAULT].concat(),
            Defect::Error,
        ),
        (
            &*[ROLE, WORD].concat(),
            &*[ROLE, WORD].concat(),
            Defect::Unfinished,
        ),
        (
            &*[ROLE, WORD, &WORD[..40]].concat(),
            &*[ROLE, WORD].concat(),
            Defect::Unfinished,
        ),
        (&*[ROLE, "data: hello\n\n"].concat(), ROLE, Defect::Json),
        (
            &*[ROLE, "data: {\"choices\":[\n\n"].concat(),
            ROLE,
            Defect::Json,
        ),
        (
            &*[ROLE, "data: {\"choices\":[{\"index\":0}]}\n\n"].concat(),
            ROLE,
            Defect::Shape,
        ),
        (
            &*[ROLE, "data: {\"choices\":[{\"text\":\"a\"}]}\n\n"].concat(),
            ROLE,
            Defect::Shape,
        ),
        (
            &*[ROLE, "data: {\"choices\":7}\n\n"].concat(),
            ROLE,
            Defect::Shape,
        ),
    ] {
        assert_eq!(chat(text), (passed.to_owned(), Err(defect)), "{text}");
    }
}

#[test]
fn the_role_and_empty_texts_are_no_output() {
    let mut events = Events::new(Protocol::Chat, Edits::default());
    let mut output = |text: &str| events.take(Bytes::copy_from_slice(text.as_bytes())).output;
    assert!(!output(ROLE));
    assert!(!output(": ping\n\n"));
    assert!(!output(
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n"
    ));
    assert!(output(WORD));
    assert!(output(
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n"
    ));
    assert!(!output(USAGE));
    assert_eq!((events.tally().outputs, events.tally().bytes), (2, 1));
}

#[test]
fn an_event_that_never_ends_is_not_held_for_ever() {
    let mut events = Events::new(Protocol::Completions, Edits::default());
    let piece = Bytes::from(vec![b'a'; 1 << 20]);
    let mut taken = 0;
    let ended = loop {
        let passed = events.take(piece.clone());
        assert!(passed.events.is_empty());
        taken += piece.len();
        if passed.next != Next::More {
            break passed.next;
        }
        assert!(taken <= MAX_EVENT + piece.len());
    };
    assert_eq!(ended, Next::Broken(Defect::Large));
}

#[test]
fn an_event_of_a_stream_costs_no_allocation() {
    let mut events = Events::new(Protocol::Chat, Edits::default());
    let piece = Bytes::from_static(WORD.as_bytes());
    events.take(piece.clone());
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(events.take(piece.clone()).output);
        }
    });
    assert_eq!(counted.count_total, 0);
}

proptest! {
    /// However the bytes are cut into pieces, the same passes.
    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(0_usize..7, 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        crlf in any::<bool>(),
    ) {
        let known = [ROLE, WORD, STOP, USAGE, FAULT, "data: [DONE]\n\n", ": p\n\n"];
        let mut text: String = parts.iter().map(|part| known[*part]).collect();
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        let bytes = text.as_bytes();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(stream(Protocol::Chat, &pieces), chat(&text));
    }

    #[test]
    fn rubbish_is_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
        let mut events = Events::new(Protocol::Completions, Edits::default());
        for piece in &pieces {
            if events.take(Bytes::copy_from_slice(piece)).next != Next::More {
                return Ok(());
            }
        }
        prop_assert!(events.end().is_err());
        for piece in &pieces {
            prop_assert!(whole::judge(Protocol::Chat, None, piece).is_err());
        }
    }
}
