//! The spellings of a schema that clients send, and what a client's grammar may cost.

use super::*;

fn compile(schema: Value) -> Result<Grammar, GrammarError> {
    fixture().1.compile(&GrammarSpec::JsonSchema(schema))
}

/// The only text under a schema.
fn only(schema: Value) -> String {
    let text = sample(&GrammarSpec::JsonSchema(schema), 3).unwrap();
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn references_lead_where_their_pointers_say() {
    let defs = json!({"a~b": {"const": 1}, "a/b": {"const": 2}, "a b": {"const": 3}, "ü": {"const": 4},
        "100%": {"const": 5}, "deep": {"$defs": {"er": {"const": 6}}}, "list": {"anyOf": [{"const": 7}]},
        "named": {"$anchor": "here", "const": 8}, "other": {"$id": "https://x.example/other", "const": 9},
        "old": {"$id": "#old", "const": 10}});
    let cases = [
        ("#/$defs/a~0b", "1"),
        ("#/$defs/a~1b", "2"),
        ("#/$defs/a%20b", "3"),
        ("#/$defs/%C3%BC", "4"),
        ("#/$defs/100%25", "5"),
        ("#/$defs/deep/$defs/er", "6"),
        ("#/$defs/list/anyOf/0", "7"),
        ("#here", "8"),
        ("https://x.example/other", "9"),
        ("other", "9"),
        ("#old", "10"),
        ("https://x.example/root#/$defs/a~0b", "1"),
    ];
    for (reference, text) in cases {
        let schema = json!({"$id": "https://x.example/root", "$ref": reference, "$defs": defs});
        assert_eq!(only(schema), text, "{reference}");
    }
    for missing in [
        "#/$defs/nothing",
        "#nowhere",
        "https://y.example/z",
        "#/$defs/%zz",
        "#/$id",
    ] {
        let schema = json!({"$id": "https://x.example/root", "$ref": missing, "$defs": defs});
        let error = compile(schema).unwrap_err();
        assert!(
            matches!(error, GrammarError::Invalid { .. }),
            "{missing}: {error}"
        );
    }
}

#[test]
fn names_of_keywords_are_names_where_they_stand_for_properties() {
    let schema = json!({"type": "object", "required": ["$ref", "items", "format"], "properties": {
        "$ref": {"const": "#/nowhere"}, "items": {"const": 1}, "format": {"enum": ["password"]},
        "$defs": false, "maxLength": false}});
    assert_eq!(
        only(schema),
        r##"{"$ref":"#/nowhere","items":1,"format":"password"}"##
    );
}

#[test]
fn a_recursion_that_nothing_ends_is_refused() {
    let error =
        compile(json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
}

#[test]
fn annotations_are_annotations() {
    for format in [
        "password", "binary", "path", "phone", "regex", "int32", "unknown",
    ] {
        compile(json!({"type": "string", "format": format})).unwrap();
    }
    for idle in [
        json!({"type": "array", "uniqueItems": false}),
        json!({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": false}),
        json!({"type": "object", "propertyNames": {}, "dependentRequired": {}}),
        json!({"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 2, "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1, "required": ["a"]}),
    ] {
        compile(idle.clone()).unwrap_or_else(|error| panic!("{idle}: {error}"));
    }
}

#[test]
fn counts_are_integers_however_they_are_written() {
    let cases = [
        json!({"type": "string", "minLength": 2.0, "maxLength": 3.0}),
        json!({"type": "string", "maxLength": 100_000}),
        json!({"type": "string", "maxLength": 20_000}),
        json!({"type": "string", "maxLength": 1e300}),
        json!({"type": "array", "items": {"type": "null"}, "minItems": 1.0, "maxItems": 1e9}),
        json!({"type": "object", "maxProperties": 1e6}),
        json!({"type": "object", "minProperties": 0.0}),
    ];
    for schema in cases {
        compile(schema.clone()).unwrap_or_else(|error| panic!("{schema}: {error}"));
    }
    for wrong in [json!(-1), json!(2.5), json!("3"), json!(null)] {
        let error = compile(json!({"type": "string", "maxLength": wrong})).unwrap_err();
        assert!(error.to_string().contains("`maxLength`"), "{error}");
    }
    assert_eq!(
        only(json!({"type": "array", "items": {"const": 1}, "minItems": 2.0, "maxItems": 2.0})),
        "[1,1]"
    );
}

#[test]
fn many_choices_are_as_good_as_few() {
    let choices: Vec<String> = (0..4000).map(|n| format!("c{n}")).collect();
    let text = sample(&GrammarSpec::Choice(choices.clone()), 5).unwrap();
    assert!(choices.contains(&text), "{text}");
    let schema = json!({"enum": choices});
    assert!(compile(schema).is_ok());
}

/// What once ended the process, took minutes, or failed only after the answer had begun.
fn costly() -> Vec<GrammarSpec> {
    let nested = |open: &str, close: &str, n: usize| open.repeat(n) + "a" + &close.repeat(n);
    let chain: String = (0..5000).map(|n| format!("r{n}: r{}\n", n + 1)).collect();
    let any_of: Vec<Value> = (0..3000)
        .map(|n| json!({"type": "object", "properties": {format!("p{n}"): {"type": "string"}}, "required": [format!("p{n}")]}))
        .collect();
    let optional: serde_json::Map<String, Value> = (0..2000)
        .map(|n| (format!("p{n}"), json!({"type": "string"})))
        .collect();
    let links: serde_json::Map<String, Value> = (0..3000)
        .map(|n| {
            (
                format!("d{n}"),
                json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", n + 1)}}),
            )
        })
        .collect();
    let all: serde_json::Map<String, Value> = (0..40)
        .map(|n| {
            let to: Vec<Value> = (0..40)
                .map(|m| json!({"$ref": format!("#/$defs/d{m}")}))
                .collect();
            (
                format!("d{n}"),
                json!({"type": "array", "items": {"anyOf": to}}),
            )
        })
        .collect();
    vec![
        GrammarSpec::Lark("start: a\na: b\nb: a\n".to_owned()),
        GrammarSpec::Lark("start: start\n".to_owned()),
        GrammarSpec::Lark("start: a*\na: b?\nb: \"x\"?\n".to_owned()),
        GrammarSpec::Lark("start: A\nA: B\nB: A\n".to_owned()),
        GrammarSpec::Lark(format!(
            "start: {}\n",
            nested("(", ")", 50_000).replace('a', "\"a\"")
        )),
        GrammarSpec::Lark(format!("start: r0\n{chain}r5000: \"x\"\n")),
        GrammarSpec::Lark("start: \"a\"{0,100000000}\n".to_owned()),
        GrammarSpec::Regex(".*".repeat(200)),
        GrammarSpec::Regex(nested("(", ")*", 20_000)),
        GrammarSpec::Regex("(a{1000}){1000}".to_owned()),
        GrammarSpec::Regex("((a{100}){100}){100}".to_owned()),
        GrammarSpec::Regex("(.*a){40}".to_owned()),
        GrammarSpec::Regex("[^a]{4000}".to_owned()),
        GrammarSpec::JsonSchema(json!({"type": "string", "pattern": "(a|b)*a(a|b){60}"})),
        GrammarSpec::JsonSchema(json!({"type": "string", "pattern": "^(a{500}){500}$"})),
        GrammarSpec::JsonSchema(json!({"anyOf": any_of})),
        GrammarSpec::JsonSchema(json!({"type": "object", "properties": optional})),
        GrammarSpec::JsonSchema(json!({"$ref": "#/$defs/d0", "$defs": links})),
        GrammarSpec::JsonSchema(json!({"$ref": "#/$defs/d0", "$defs": all})),
        GrammarSpec::JsonSchema(json!({"multipleOf": 4_000_000_000_u64})),
        GrammarSpec::JsonSchema(json!({"multipleOf": 9_999_991})),
        GrammarSpec::JsonSchema(json!({"type": "integer", "multipleOf": 99_999_989})),
        GrammarSpec::JsonSchema(json!({"allOf": [{"multipleOf": 99_999}, {"multipleOf": 99_991}]})),
        GrammarSpec::JsonSchema(json!({"const": "é".repeat(300)})),
        GrammarSpec::JsonSchema(json!({"type": {"é".repeat(99): 1}})),
    ]
}

#[test]
fn what_costs_too_much_is_refused_and_the_reason_is_short() {
    let (tokenizer, compiler) = fixture();
    for spec in costly() {
        let shown: String = format!("{spec:?}").chars().take(100).collect();
        let began = std::time::Instant::now();
        match compiler.compile(&spec) {
            Err(error) => {
                let reason = error.to_string();
                assert!(
                    reason.chars().count() < 260 && !reason.contains('\n'),
                    "{shown}: {reason}"
                );
            }
            Ok(grammar) => {
                // What compiles can also be gone on with.
                let mut matcher = grammar.matcher();
                for step in 0..8 {
                    if matcher.is_finished() {
                        break;
                    }
                    let mask = matcher
                        .mask()
                        .unwrap_or_else(|e| panic!("{shown}: step {step}: {e}"));
                    let id = (0..u32::try_from(tokenizer.vocab_size()).unwrap())
                        .filter(|id| !tokenizer.eos().contains(id))
                        .find(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1);
                    let Some(id) = id else { break };
                    matcher
                        .accept(id)
                        .unwrap_or_else(|e| panic!("{shown}: step {step}: {e}"));
                }
            }
        }
        // Not a benchmark: what recursed without end took minutes.
        assert!(began.elapsed().as_secs() < 20, "{shown}");
    }
}

#[test]
fn a_reason_says_what_is_wrong_and_does_not_quote_the_grammar() {
    let secret = "s3cret".repeat(40);
    let cases = [
        (GrammarSpec::Regex(format!("({secret}")), "unclosed group"),
        (
            GrammarSpec::Lark(format!("start: \"{secret}\" missing\n")),
            "missing",
        ),
        (
            GrammarSpec::JsonSchema(json!({"type": "string", "pattern": format!("({secret}")})),
            "unclosed group",
        ),
        (
            GrammarSpec::JsonSchema(
                json!({"type": "string", "pattern": format!("^{secret}$"), "maxLength": 3}),
            ),
            "no string fits",
        ),
    ];
    for (spec, words) in cases {
        let reason = fixture().1.compile(&spec).unwrap_err().to_string();
        assert!(reason.contains(words), "{reason}");
        assert!(
            !reason.contains("s3crets3cret") && reason.len() < 260,
            "{reason}"
        );
    }
}

#[test]
fn steps_of_one_number_are_held_together_or_refused() {
    let all = |steps: &[f64]| {
        let each: Vec<Value> = steps
            .iter()
            .map(|step| json!({"multipleOf": step}))
            .collect();
        json!({"allOf": each, "type": "integer", "minimum": 1, "maximum": 900_000})
    };
    let number: u64 = only(all(&[6.0, 10.0, 14.0])).parse().unwrap();
    assert!(number > 0 && number.is_multiple_of(210), "{number}");
    // The compiler's product of these has more than 32 bits.
    for schema in [
        all(&[100_000.0, 100_000.0]),
        json!({"multipleOf": 70_000, "anyOf": [{"type": "null"}, {"multipleOf": 70_001}]}),
        json!({"multipleOf": 70_000, "$ref": "#/$defs/a", "$defs": {"a": {"multipleOf": 70_001}}}),
    ] {
        let error = compile(schema).unwrap_err().to_string();
        assert!(error.contains("multipleOf"), "{error}");
    }
    // Of different numbers each has its own.
    let apart = json!({"type": "object", "properties": {
        "a": {"type": "integer", "multipleOf": 70_000, "minimum": 70_000, "maximum": 70_000},
        "b": {"anyOf": [{"type": "number", "multipleOf": 0.01}, {"type": "number", "minimum": 0}]},
    }, "required": ["a"], "additionalProperties": false});
    assert!(compile(apart).is_ok());
}
