//! How upstreams are asked for the usage of streams.

use super::super::envelope::EnvelopeError;
use super::*;

const ASKED: &str = r#""stream_options":{"include_usage":true}"#;

fn asking(body: &str) -> Option<String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let envelope = Envelope::parse(&body).unwrap();
    let asking = envelope.asking_for_usage(&body, Some("\"theirs\""))?;
    Some(String::from_utf8(asking.to_vec()).unwrap())
}

#[test]
fn a_stream_is_asked_for_usage_in_every_spelling() {
    for (body, expected) in [
        (
            r#"{"model":"a","stream":true}"#.to_owned(),
            format!(r#"{{{ASKED},"model":"theirs","stream":true}}"#),
        ),
        (
            r#" { "stream":true, "stream_options" : null ,"model":"a"}"#.to_owned(),
            r#" { "stream":true, "stream_options" : {"include_usage":true} ,"model":"theirs"}"#
                .to_owned(),
        ),
        (
            r#"{"model":"a","stream_options":{},"stream":true}"#.to_owned(),
            format!(r#"{{"model":"theirs",{ASKED},"stream":true}}"#),
        ),
        (
            r#"{"model":"a","stream_options":{"include_usage":false,"x":[1]}}"#.to_owned(),
            r#"{"model":"theirs","stream_options":{"include_usage":true,"x":[1]}}"#.to_owned(),
        ),
        (
            r#"{"stream_options":{"include_usage":null,"continuous_usage_stats":true}}"#.to_owned(),
            format!("{{{ASKED}}}"),
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#.to_owned(),
            format!("{{{ASKED}}}"),
        ),
    ] {
        assert_eq!(asking(&body), Some(expected), "{body}");
    }
    // What asks itself, and what is the upstream's to refuse.
    for same in [
        r#"{"stream_options":{"include_usage":true}}"#,
        r#"{"stream_options":"yes"}"#,
        r#"{"stream_options":[true]}"#,
    ] {
        assert_eq!(asking(same), None, "{same}");
        let asks = Envelope::parse(same.as_bytes()).unwrap().asks_for_usage();
        assert_eq!(asks, same.contains("true}"), "{same}");
    }
}

#[test]
fn a_prompt_is_measured_by_its_texts_and_tokens() {
    let picture = format!(
        r#"{{"messages":[{{"url":"data:image/png;base64,{}"}}]}}"#,
        "A".repeat(100_000)
    );
    for (body, tokens) in [
        (r#"{"messages":[{"role":"user","content":"Hi"}]}"#, 5),
        (r#"{"prompt":"0123456789"}"#, 3),
        (
            r#"{"prompt":["0123","4567"],"max_tokens":1000,"user":"somebody"}"#,
            2,
        ),
        (r#"{"prompt":[[1, -2,3],[44 ]]}"#, 4),
        (r#"{"input":"a\"b\\","model":"a long name of a model"}"#, 2),
        (r#"{"query":"0123","documents":["4567",{"text":"89"}]}"#, 4),
        (r#"{"messages":null}"#, 0),
        (&picture, 257),
    ] {
        let envelope = Envelope::parse(body.as_bytes()).unwrap();
        assert_eq!(
            envelope.prompt_tokens(),
            tokens,
            "{}",
            &body[..40.min(body.len())]
        );
    }
}

#[tokio::test]
async fn an_upstream_is_asked_for_the_usage_of_a_stream() {
    let upstream = Upstream::start().await;
    for asks in [true, false] {
        let config = UpstreamConfig {
            ask_usage: asks,
            ..quick()
        };
        let pool = pool(&[&upstream], &config).await;
        let pieces = upstream.stream();
        let answer = ask_for(&pool, true).await.1.unwrap();
        drop((answer, pieces));
        let (_, body) = upstream.script.last.lock().take().unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(body.contains(ASKED), asks, "{body}");
        assert!(body.contains("their-name"), "{body}");
        // What is answered in one piece brings its usage anyway.
        ask(&pool).await.1.unwrap();
        let (_, body) = upstream.script.last.lock().take().unwrap();
        assert_eq!(body, BODY.replace("our-name", "their-name"));
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_know_the_field_is_asked_without_it() {
    let upstream = Upstream::start().await;
    *upstream.script.unknown.lock() = Some("stream_options");
    let pool = pool(&[&upstream], &quick()).await;
    for (round, expected) in [(0, 2), (1, 1)] {
        let seen = upstream.seen();
        let pieces = upstream.stream();
        let (context, answer) = ask_for(&pool, true).await;
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(upstream.seen() - seen, expected, "{round}");
        assert_eq!(context.outcome.fault(), None);
        drop(pieces);
    }
    assert_eq!((pool.upstreams()[0].failures(), pool.retries()), (0, 0));
    // A refusal that has another reason is the client's.
    *upstream.script.unknown.lock() = Some("messages");
    assert_eq!(ask_for(&pool, true).await.1.unwrap().status(), 400);
}

#[tokio::test]
async fn an_answer_has_the_name_that_was_asked_for_unless_it_is_to_keep_the_upstreams() {
    let upstream = Upstream::start().await;
    *upstream.script.plain.lock() = Some(ANSWER.replacen('{', r#"{"model":"their-name","#, 1));
    let pool = pool(&[&upstream], &quick()).await;
    let renamed = ask(&pool).await.1.unwrap();
    assert!(text(renamed).await.starts_with(r#"{"model":"our-name","#));
    let keeping = pool.keeping_model_name(true);
    let kept = ask(&keeping).await.1.unwrap();
    assert!(text(kept).await.starts_with(r#"{"model":"their-name","#));
}

#[tokio::test]
async fn our_own_account_is_no_matter_of_the_clients() {
    let upstream = Upstream::start().await;
    let pool = pool(&[&upstream], &quick()).await;
    for status in [401, 402, 403, 407] {
        upstream.answer_with(status);
        let error = ask(&pool).await.1.unwrap_err();
        assert!(matches!(error, ForwardError::Denied), "{error}");
    }
    assert!(!pool.upstreams()[0].is_ejected());
}

#[test]
fn the_model_is_replaced_in_place() {
    for (body, expected) in [
        (r#"{"model":"a"}"#, r#"{"model":"b\"c"}"#),
        (
            r#"{"x":{"model":"no"},"model":"a\u00e9"}"#,
            r#"{"x":{"model":"no"},"model":"b\"c"}"#,
        ),
        (r#"{"x":1}"#, r#"{"x":1}"#),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        let envelope = Envelope::parse(&body).unwrap();
        assert_eq!(envelope.for_upstream(&body, Some(r#""b\"c""#)), expected);
        assert_eq!(envelope.for_upstream(&body, None), body);
    }
    assert!(Envelope::parse(b"[]").is_err());
    assert!(Envelope::parse(b"{\"model\":1}").is_err());
    assert!(Envelope::parse(br#"{"stream":true}"#).unwrap().stream);
    // What another parser may read otherwise.
    for body in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","MODEL":"b"}"#,
        r#"{"stream":true,"model":"b","stream":false}"#,
        r#"{"stream_options":null,"stream_options":{}}"#,
        r#"{"Stream_options":null}"#,
    ] {
        let error = Envelope::parse(body.as_bytes()).unwrap_err();
        assert!(matches!(error, EnvelopeError::Ambiguous(_)), "{body}");
    }
}
