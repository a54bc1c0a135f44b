#![expect(clippy::unwrap_used, reason = "tests")]

mod ends;
mod spelling;

use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{byte_fallback, byte_level, walk};
use crate::tokenizer::TextTokenizer;

fn fixture() -> &'static (TextTokenizer, GrammarCompiler) {
    static FIXTURE: OnceLock<(TextTokenizer, GrammarCompiler)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let tokenizer = byte_level();
        let compiler = GrammarCompiler::new(&tokenizer).unwrap();
        (tokenizer, compiler)
    })
}

/// Text of a random walk under the grammar; `None` if it did not end.
fn sample(spec: &GrammarSpec, seed: u64) -> Option<String> {
    let (tokenizer, compiler) = fixture();
    walk(tokenizer, &compiler.compile(spec).unwrap(), seed, 120)
}

/// The keywords that the tests use, checked the naive way.
fn validates(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return validates(value, target, root);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().map(|k| k.as_str().unwrap()).collect(),
        _ => vec![],
    };
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    let number = |key: &str| schema[key].as_f64();
    let counted = |count: usize, low: &str, high: &str| {
        number(low).is_none_or(|n| count as f64 >= n)
            && number(high).is_none_or(|n| count as f64 <= n)
    };
    let any_of = schema["anyOf"].as_array();
    (kinds.is_empty() || kinds.iter().any(|k| is(k)))
        && (schema["const"].is_null() || *value == schema["const"])
        && schema["enum"].as_array().is_none_or(|e| e.contains(value))
        && any_of.is_none_or(|any| any.iter().any(|s| validates(value, s, root)))
        && value.as_f64().is_none_or(|n| {
            number("minimum").is_none_or(|m| n >= m) && number("maximum").is_none_or(|m| n <= m)
        })
        && value
            .as_str()
            .is_none_or(|s| counted(s.chars().count(), "minLength", "maxLength"))
        && value.as_array().is_none_or(|items| {
            counted(items.len(), "minItems", "maxItems")
                && (!schema["items"].is_object()
                    || items.iter().all(|v| validates(v, &schema["items"], root)))
        })
        && value.as_object().is_none_or(|fields| {
            let required = schema["required"].as_array();
            let known = schema["properties"].as_object();
            required.is_none_or(|r| r.iter().all(|k| fields.contains_key(k.as_str().unwrap())))
                && fields
                    .iter()
                    .all(|(key, v)| match known.and_then(|k| k.get(key)) {
                        Some(schema) => validates(v, schema, root),
                        None => schema["additionalProperties"] != json!(false),
                    })
        })
}

fn schemas() -> Vec<Value> {
    let object = |properties: Value, required: Value| {
        json!({"type": "object", "properties": properties, "required": required,
               "additionalProperties": false})
    };
    vec![
        json!({"type": "object"}),
        object(json!({"a": {"type": "string"}}), json!(["a"])),
        object(json!({"a": {"type": "integer"}, "b": {"type": "number"}}), json!(["a", "b"])),
        object(json!({"a": {"type": "boolean"}, "b": {"type": "null"}}), json!(["b"])),
        object(json!({"mood": {"enum": ["good", "bad", 3, null, true]}}), json!(["mood"])),
        object(json!({"kind": {"const": "ticket"}, "n": {"const": 7}}), json!(["kind", "n"])),
        object(json!({"部门": {"enum": ["网络", "账号", "硬件"]}, "名": {"type": "string", "maxLength": 4}}),
               json!(["部门", "名"])),
        object(json!({"s": {"type": "string", "minLength": 2, "maxLength": 5}}), json!(["s"])),
        object(json!({"n": {"type": "integer", "minimum": -3, "maximum": 12}}), json!(["n"])),
        object(json!({"x": {"type": "number", "minimum": 0, "maximum": 1}}), json!(["x"])),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}),
        object(json!({"tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}),
               json!(["tags"])),
        object(json!({"o": object(json!({"i": object(json!({"n": {"type": "null"}}), json!(["n"]))}),
                                  json!(["i"]))}), json!(["o"])),
        json!({"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "null"}, "maxItems": 2}]}),
        object(json!({"v": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}}),
               json!(["v"])),
        object(json!({"v": {"type": ["string", "integer"], "maxLength": 3}}), json!(["v"])),
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"value": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#/$defs/node"},
                {"type": "null"}]}},
            "required": ["value", "next"], "additionalProperties": false}}}),
        object(json!({"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}}), json!(["a"])),
        object(json!({"a b\"c": {"type": "boolean"}, "é\n": {"type": "null"}}), json!(["a b\"c", "é\n"])),
        object(json!({}), json!([])),
        json!({"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"],
               "additionalProperties": {"type": "integer"}}),
    ]
    .into_iter()
    .map(|mut schema| {
        if schema.get("$defs").is_none() {
            schema["$defs"] = json!({"p": {"type": "integer", "minimum": 1, "maximum": 3}});
        }
        schema
    })
    .collect()
}

/// Keywords with values of any kind, nested.
fn junk_schema() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 24] = [
        "type",
        "properties",
        "items",
        "required",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "$ref",
        "$defs",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "additionalProperties",
        "patternProperties",
        "prefixItems",
        "minItems",
        "maxItems",
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        prop::sample::select(vec![
            "object",
            "string",
            "integer",
            "array",
            "a",
            "#",
            "#/$defs/a",
            "(",
            "[a-",
            "date",
            "^x{3}$",
            "uuid"
        ])
        .prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(&KEYS[..]), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_output_validates(seed in any::<u64>()) {
        for schema in schemas() {
            let text = sample(&GrammarSpec::JsonSchema(schema.clone()), seed);
            let text = text.ok_or_else(|| TestCaseError::fail(format!("no end: {schema}")))?;
            let value: Value = match serde_json::from_str(&text) {
                Ok(value) => value,
                // Numbers like 1e999 are JSON, but no f64.
                Err(e) if e.to_string().starts_with("number out of range") => continue,
                Err(e) => return Err(TestCaseError::fail(format!("{e}: {text}"))),
            };
            prop_assert!(validates(&value, &schema, &schema), "{} under {}", text, schema);
        }
    }

    #[test]
    fn no_schema_makes_it_panic(schema in junk_schema()) {
        // Whatever compiles also has a first mask.
        if let Ok(grammar) = fixture().1.compile(&GrammarSpec::JsonSchema(schema)) {
            prop_assert!(grammar.matcher().mask().is_ok());
        }
    }

    #[test]
    fn any_object_is_an_object(seed in any::<u64>()) {
        let text = sample(&GrammarSpec::JsonObject, seed).unwrap();
        // Numbers like 1e999 are JSON, but no f64.
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        prop_assert_eq!(text.chars().next(), Some('{'));
    }

    #[test]
    fn patterns_and_formats_hold(seed in any::<u64>()) {
        let schema = json!({"type": "object", "additionalProperties": false,
            "required": ["id", "day", "mail"],
            "properties": {"id": {"type": "string", "pattern": "^INC-[0-9]{4}$"},
                           "day": {"type": "string", "format": "date"},
                           "mail": {"type": "string", "format": "email"}}});
        let value: Value =
            serde_json::from_str(&sample(&GrammarSpec::JsonSchema(schema), seed).unwrap()).unwrap();
        let id = value["id"].as_str().unwrap();
        prop_assert!(id.len() == 8 && id.starts_with("INC-"), "{}", id);
        prop_assert!(id[4..].bytes().all(|b| b.is_ascii_digit()));
        let day: Vec<u32> = value["day"].as_str().unwrap().split('-').map(|n| n.parse().unwrap()).collect();
        prop_assert!(day.len() == 3 && (1..=12).contains(&day[1]) && (1..=31).contains(&day[2]));
        prop_assert!(value["mail"].as_str().unwrap().contains('@'));
    }

    #[test]
    fn choices_and_patterns_are_exact(seed in any::<u64>()) {
        let choices = ["yes", "no", "不知道", "a \"quoted\" one\n", "yes, but"].map(str::to_owned);
        let text = sample(&GrammarSpec::Choice(choices.to_vec()), seed).unwrap();
        prop_assert!(choices.contains(&text), "{:?}", text);
        let text = sample(&GrammarSpec::Regex("[a-c]{2}(x|好)+".to_owned()), seed).unwrap();
        prop_assert!(text.chars().count() >= 3 && text.ends_with(['x', '好']), "{:?}", text);
        let lark = "start: item (\",\" item)*\nitem: /[0-9]{1,2}/\n".to_owned();
        let text = sample(&GrammarSpec::Lark(lark), seed).unwrap();
        prop_assert!(text.split(',').all(|n| n.parse::<u8>().is_ok_and(|n| n < 100)), "{}", text);
    }
}

#[test]
fn byte_fallback_vocabularies_work_too() {
    let tokenizer = byte_fallback();
    let compiler = GrammarCompiler::new(&tokenizer).unwrap();
    let schema = json!({"type": "object", "properties": {"名": {"enum": ["你好", "é"]}},
                        "required": ["名"], "additionalProperties": false});
    let grammar = compiler.compile(&GrammarSpec::JsonSchema(schema)).unwrap();
    for seed in 0..8 {
        let text = walk(&tokenizer, &grammar, seed, 60).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(["你好", "é"].contains(&value["名"].as_str().unwrap()));
    }
}

#[test]
fn the_mask_has_a_bit_for_each_token_and_end_tokens_only_where_it_may_end() {
    let (tokenizer, compiler) = fixture();
    let grammar = compiler
        .compile(&GrammarSpec::Regex("ab?".to_owned()))
        .unwrap();
    let mut matcher = grammar.matcher();
    let allowed = |matcher: &mut Matcher| -> Vec<u32> {
        let mask = matcher.mask().unwrap();
        assert!(mask.len() * 32 >= tokenizer.vocab_size());
        (0..u32::try_from(mask.len() * 32).unwrap())
            .filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1)
            .collect()
    };
    let end = tokenizer.eos()[0];
    let (a, b) = (u32::from(b'a'), u32::from(b'b'));
    assert_eq!(allowed(&mut matcher), [a]);
    assert!(!matcher.may_end().unwrap());
    matcher.accept(a).unwrap();
    assert_eq!(allowed(&mut matcher), [b, end]);
    assert!(matcher.may_end().unwrap() && !matcher.is_finished());
    matcher.accept(b).unwrap();
    assert!(matcher.is_finished());
    assert_eq!(allowed(&mut matcher), [end]);
    assert!(matcher.accept(a).is_err());

    // The prototype is untouched.
    assert_eq!(allowed(&mut grammar.matcher()), [a]);
    assert!(matches!(
        grammar.matcher().accept(b),
        Err(GrammarError::Stuck { .. })
    ));
}

#[test]
fn blanks_between_lexemes_are_bounded() {
    let (_, compiler) = fixture();
    let grammar = compiler.compile(&GrammarSpec::JsonObject).unwrap();
    let mut matcher = grammar.matcher();
    let space = u32::from(b' ');
    let allows = |matcher: &mut Matcher, id: u32| {
        matcher.mask().unwrap()[id as usize / 32] >> (id % 32) & 1 == 1
    };
    assert!(!allows(&mut matcher, space));
    matcher.accept(u32::from(b'{')).unwrap();
    assert!(allows(&mut matcher, space));
    matcher.accept(space).unwrap();
    assert!(!allows(&mut matcher, space));
    assert!(!allows(&mut matcher, u32::from(b'\n')));
}

#[test]
fn a_model_without_end_token_stops_where_nothing_may_follow() {
    let inner = byte_level();
    let tokenizer = {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), inner.to_json()).unwrap();
        TextTokenizer::from_folder(dir.path()).unwrap()
    };
    assert!(tokenizer.eos().is_empty());
    let compiler = GrammarCompiler::new(&tokenizer).unwrap();
    let mut matcher = compiler
        .compile(&GrammarSpec::Choice(vec!["a".to_owned()]))
        .unwrap()
        .matcher();
    matcher.accept(u32::from(b'a')).unwrap();
    assert!(matcher.is_finished());
}

#[test]
fn unsupported_keywords_are_named() {
    let (_, compiler) = fixture();
    let refused = |schema: Value| {
        compiler
            .compile(&GrammarSpec::JsonSchema(schema))
            .unwrap_err()
    };
    let error = refused(json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}));
    assert!(
        matches!(&error, GrammarError::Unsupported { keyword, .. } if keyword == "not"),
        "{error}"
    );
    let error = refused(json!({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 1}]}));
    assert!(
        matches!(&error, GrammarError::Unsupported { keyword, .. } if keyword == "oneOf"),
        "{error}"
    );
}

#[test]
fn invalid_grammars_are_refused_with_a_reason() {
    let (_, compiler) = fixture();
    let refused = [
        GrammarSpec::JsonSchema(json!([1])),
        GrammarSpec::JsonSchema(json!({"type": "objekt"})),
        GrammarSpec::JsonSchema(json!({"type": "string", "pattern": "("})),
        GrammarSpec::JsonSchema(json!({"$ref": "#/$defs/missing"})),
        GrammarSpec::Regex("(".to_owned()),
        GrammarSpec::Lark("start: missing".to_owned()),
        GrammarSpec::Choice(vec![]),
        GrammarSpec::Choice(vec![String::new()]),
    ];
    for spec in refused {
        let error = compiler.compile(&spec).unwrap_err();
        assert!(
            matches!(error, GrammarError::Invalid { .. }),
            "{spec:?}: {error:?}"
        );
        assert!(error.to_string().len() > 20);
    }
}

#[test]
fn too_complex_grammars_are_refused_before_they_cost_anything() {
    let (_, compiler) = fixture();
    let deep = (0..200).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let wide: Value = (0..30_000).map(|n| json!(n)).collect();
    let refused = [
        GrammarSpec::JsonSchema(deep),
        GrammarSpec::JsonSchema(json!({"enum": wide})),
        GrammarSpec::JsonSchema(json!({"type": "array", "minItems": 1_000_000})),
        GrammarSpec::Lark("x".repeat(1_000_000)),
    ];
    for spec in refused {
        let error = compiler.compile(&spec).unwrap_err();
        assert!(
            matches!(error, GrammarError::TooComplex { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn the_clients_own_compiler_options_are_ignored() {
    let text = sample(
        &GrammarSpec::JsonSchema(
            json!({"enum": ["a"], "x-guidance": {"whitespace_pattern": "x+"}}),
        ),
        1,
    );
    assert_eq!(text.unwrap().trim(), "\"a\"");
}

#[test]
fn the_cache_is_bounded() {
    let tokenizer = byte_level();
    let options = CompilerOptions {
        cache_entries: 2,
        ..CompilerOptions::default()
    };
    let compiler = GrammarCompiler::with_options(&tokenizer, options).unwrap();
    let spec = |n: usize| GrammarSpec::Regex(format!("a{{{n}}}"));
    let first = compiler.compile(&spec(1)).unwrap();
    let again = compiler.compile(&spec(1)).unwrap();
    assert!(Arc::ptr_eq(&first.prototype, &again.prototype));
    for n in 2..5 {
        compiler.compile(&spec(n)).unwrap();
    }
    let evicted = compiler.compile(&spec(1)).unwrap();
    assert!(!Arc::ptr_eq(&first.prototype, &evicted.prototype));
    assert_eq!(compiler.cached(), 2);
}

#[test]
fn references_may_recurse_but_not_lead_back_to_themselves() {
    let compiler = GrammarCompiler::new(&byte_level()).unwrap();
    let compile = |schema| compiler.compile(&GrammarSpec::JsonSchema(schema));
    let chain: serde_json::Map<String, serde_json::Value> = (0..100)
        .map(|n| {
            (
                format!("d{n}"),
                json!({"$ref": format!("#/$defs/d{}", n + 1)}),
            )
        })
        .chain([("d100".to_owned(), json!({}))])
        .collect();
    for schema in [
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}),
    ] {
        let error = compile(schema.clone()).unwrap_err();
        assert!(
            matches!(&error, GrammarError::Invalid { reason } if reason.contains("leads back")),
            "{schema}: {error}"
        );
    }
    let error = compile(json!({"$ref": "#/$defs/d0", "$defs": chain})).unwrap_err();
    assert!(matches!(error, GrammarError::TooComplex { .. }), "{error}");
    let tree = json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "additionalProperties": false});
    assert!(compile(tree).is_ok());
}
