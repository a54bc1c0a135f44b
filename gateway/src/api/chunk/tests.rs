#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ChunkWriter, Identity};
use crate::api::json as write;
use crate::api::sampling::StreamOptions;

fn identity(model: &str) -> Identity {
    Identity {
        id: "chatcmpl-1".into(),
        object: "chat.completion.chunk",
        created: 7,
        model: model.into(),
        service_tier: None,
        system_fingerprint: "fp_1".into(),
    }
}

fn events(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.ends_with("\n\n"));
    text.trim_end()
        .split("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

proptest! {
    /// Whatever a model says comes out as it went in, one event a chunk.
    #[test]
    fn chunks_parse_back(
        model in any::<String>(),
        texts in prop::collection::vec((0usize..9, any::<String>()), 1..8),
        usage in any::<bool>(),
        continuous in any::<bool>(),
    ) {
        let options = StreamOptions {
            include_usage: usage,
            continuous_usage: usage && continuous,
        };
        let mut writer = ChunkWriter::new(&identity(&model), options, &[2; 9]);
        let mut out = BytesMut::new();
        for (index, text) in &texts {
            writer.count(*index, 1);
            writer.chunk(&mut out, *index, |out| {
                out.extend_from_slice(b",\"text\":");
                write::push(out, text);
            });
        }
        writer.usage(&mut out, &json!({"total_tokens": 3}));
        let mut found = events(&out);
        let last = found.pop().unwrap();
        prop_assert_eq!(&last["choices"], &json!([]));
        prop_assert_eq!(&last["usage"]["total_tokens"], &json!(3));
        prop_assert_eq!(found.len(), texts.len());
        for (event, (index, text)) in found.iter().zip(&texts) {
            prop_assert_eq!(&event["model"], &json!(model));
            prop_assert_eq!(&event["choices"], &json!([{"index": index, "text": text}]));
            prop_assert_eq!(event.get("usage").is_some(), usage);
            if usage {
                let counted = event["usage"]["prompt_tokens"] == 2
                    && event["usage"]["completion_tokens"].as_u64() >= Some(1);
                prop_assert_eq!(counted, continuous);
            }
        }
    }
}
