//! Whatever is generated under a schema ends, also with weights that always prefer to go on.

use super::*;

/// What a model likes best; it never ends anything that it may go on with.
#[derive(Debug, Clone, Copy)]
enum Taste {
    /// Digits wherever they may stand.
    Digits,
    /// `-0.000…`
    Zeros,
    /// More elements, and within each other.
    Structure,
    /// Any token that ends nothing.
    Random(u64),
}

const TASTES: [Taste; 4] = [
    Taste::Digits,
    Taste::Zeros,
    Taste::Structure,
    Taste::Random(7),
];

impl Taste {
    /// The less, the better.
    fn rank(self, token: &[u8], seed: u64) -> u64 {
        let first = token.first().copied().unwrap_or(b' ');
        let closes = matches!(first, b'"' | b'}' | b']');
        let favourite = match self {
            Self::Digits => first.is_ascii_digit(),
            Self::Zeros => matches!(first, b'0' | b'-' | b'.'),
            Self::Structure => matches!(first, b'{' | b'[' | b','),
            Self::Random(_) => false,
        };
        match (favourite, closes) {
            (true, _) => 0,
            (false, true) => u64::MAX - 1,
            // Like a hash: any order, and another at each step.
            _ => {
                let mixed = seed.wrapping_mul(31).wrapping_add(u64::from(first));
                1 + (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40)
            }
        }
    }
}

/// What is written under `grammar`; `Err`: it had no end after so many tokens.
fn written(grammar: &Grammar, taste: Taste, steps: usize) -> Result<String, String> {
    let tokenizer = &fixture().0;
    let mut matcher = grammar.matcher();
    let mut ids = Vec::new();
    let seed = match taste {
        Taste::Random(seed) => seed,
        _ => 1,
    };
    for step in 0..steps {
        if matcher.is_finished() {
            return Ok(tokenizer.decode(&ids, false));
        }
        let mask = matcher.mask().map_err(|error| error.to_string())?;
        let allowed = (0..u32::try_from(tokenizer.vocab_size()).unwrap())
            .filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1)
            .filter(|id| !tokenizer.eos().contains(id));
        let best = allowed.min_by_key(|id| {
            let bytes = tokenizer.token_bytes(*id);
            taste.rank(&bytes, seed.wrapping_add(step as u64))
        });
        let Some(best) = best else {
            return Ok(tokenizer.decode(&ids, false));
        };
        matcher.accept(best).map_err(|error| error.to_string())?;
        ids.push(best);
    }
    let text: String = tokenizer.decode(&ids, false);
    Err(text.chars().take(200).collect())
}

fn compiled(schema: &Value) -> Result<Grammar, GrammarError> {
    fixture()
        .1
        .compile(&GrammarSpec::JsonSchema(schema.clone()))
}

fn one(schema: &Value) -> Value {
    json!({"type": "object", "properties": {"n": schema}, "required": ["n"], "additionalProperties": false,
        "$defs": {"x": {"type": "number", "exclusiveMinimum": 0}}})
}

/// Numbers in every spelling, and what is written with digits.
fn digits() -> Vec<Value> {
    let mut all = vec![
        json!({"type": "number"}),
        json!({"type": "integer"}),
        json!({"type": "integer", "multipleOf": 7}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 10}),
        json!({"type": "number", "multipleOf": 0.01}),
        json!({"type": "number", "multipleOf": 7}),
        json!({"type": "number", "minimum": 0, "multipleOf": 2.5}),
        json!({"multipleOf": 3}),
        json!({"anyOf": [{"type": "number"}, {"type": "null"}]}),
        json!({"oneOf": [{"type": "number", "minimum": 3}, {"type": "null"}]}),
        json!({"allOf": [{"type": "number"}]}),
        json!({"type": ["number", "null"]}),
        json!({"type": ["integer", "string"], "minimum": 5}),
        json!({"$ref": "#/$defs/x"}),
        json!({"type": "number", "enum": [1.5, 2]}),
        json!({"type": "number", "minimum": 0.1, "maximum": 0.1000001}),
        json!({"type": "number", "maximum": 1.797e308}),
        json!({"type": "integer", "maximum": 1e300}),
        json!({"type": "integer", "minimum": 1e17}),
        json!({}),
        json!({"minimum": 3}),
        json!({"title": "anything"}),
        json!({"type": "string", "pattern": "^[0-9]+$"}),
        json!({"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}),
        json!({"type": "string", "pattern": r"^\d*,\d*,\d*$"}),
        json!({"type": "string", "pattern": r"^[A-Z0-9]+$"}),
        json!({"type": "string", "pattern": r"^(\d\d)+x$"}),
        json!({"type": "string", "pattern": r"^(ab|\d)+c$"}),
        json!({"type": "string", "pattern": r"^[A-Za-z0-9_]{2,}$"}),
    ];
    for (low, high) in [
        ("minimum", "maximum"),
        ("exclusiveMinimum", "exclusiveMaximum"),
    ] {
        for value in [-3.5, 0.0, 0.25, 1e6] {
            all.push(json!({"type": "number", low: value}));
            all.push(json!({"type": "number", high: value}));
            all.push(json!({"type": "number", low: value, high: value + 1.0}));
            all.push(json!({"type": "integer", low: value}));
            all.push(json!({"type": "integer", high: value}));
        }
    }
    let formats = [
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
    ];
    all.extend(formats.map(|format| json!({"type": "string", "format": format})));
    all
}

#[test]
fn whatever_is_written_with_digits_ends_soon() {
    for schema in digits() {
        let schema = one(&schema);
        let grammar = compiled(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
        for taste in [Taste::Digits, Taste::Zeros] {
            let text = written(&grammar, taste, 190);
            let text = text.unwrap_or_else(|text| panic!("{schema}: no end: {text}"));
            assert!(
                serde_json::from_str::<Value>(&text).is_ok(),
                "{schema}: {text}"
            );
        }
    }
}

/// Bounds within which a test sees the end.
fn small() -> CompilerOptions {
    CompilerOptions {
        bounds: Bounds {
            number_chars: 24,
            string_bytes: 40,
            pattern_chars: 12,
            items: 4,
            depth: 5,
            bytes: 300,
        },
        ..CompilerOptions::default()
    }
}

fn small_compiler() -> &'static GrammarCompiler {
    static COMPILER: OnceLock<GrammarCompiler> = OnceLock::new();
    COMPILER.get_or_init(|| GrammarCompiler::with_options(&fixture().0, small()).unwrap())
}

#[test]
fn what_has_no_bound_of_its_own_ends() {
    let tree = json!({"type": "object", "required": ["v", "children"], "properties": {
        "v": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/t"}}}});
    // Each sum needs two further expressions: only numbers end it.
    let sum = json!({"type": "object", "required": ["left", "right"], "properties": {
        "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}});
    let number = json!({"type": "object", "required": ["value"], "properties": {"value": {"type": "number"}}});
    let schemas = [
        json!({}),
        json!({"type": "object"}),
        json!({"type": "array"}),
        json!({"type": "string"}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "array"}}}),
        json!({"type": "array", "minItems": 9, "items": {"type": "string"}}),
        json!({"type": "object", "additionalProperties": {"type": "object", "additionalProperties": true}}),
        json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false}),
        json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {}}),
        json!({"$ref": "#/$defs/t", "$defs": {"t": tree}}),
        json!({"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": [{"$ref": "#/$defs/s"}, {"$ref": "#/$defs/n"}]},
            "s": sum, "n": number}}),
        json!({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["next"]}),
        json!({"type": "object", "properties": {"next": {"$ref": "#"}}}),
        json!({"type": "array", "items": {"$ref": "#"}}),
    ];
    for schema in schemas {
        let grammar = small_compiler().compile(&GrammarSpec::JsonSchema(schema.clone()));
        let grammar = grammar.unwrap_or_else(|error| panic!("{schema}: {error}"));
        for taste in TASTES {
            let text = written(&grammar, taste, 6000);
            let text = text.unwrap_or_else(|text| panic!("{schema} {taste:?}: no end: {text}"));
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            assert!(parsed.is_ok(), "{schema}: {text}");
        }
    }
}

#[test]
fn patterns_and_objects_of_ones_own_end_where_they_may() {
    let specs = [
        GrammarSpec::JsonObject,
        GrammarSpec::Regex(".*".to_owned()),
        GrammarSpec::Regex("[0-9]+".to_owned()),
        GrammarSpec::Regex("a(b|c)*".to_owned()),
        GrammarSpec::Lark("start: item (\",\" item)*\nitem: /[0-9]+/\n".to_owned()),
    ];
    for spec in specs {
        let grammar = small_compiler().compile(&spec).unwrap();
        for taste in TASTES {
            let text = written(&grammar, taste, 6000);
            assert!(text.is_ok(), "{spec:?} {taste:?}: {text:?}");
        }
    }
}

/// A schema for one value, in any of the spellings that clients use.
fn leaf() -> impl Strategy<Value = Value> {
    let limit = prop::sample::select(vec![-1e6, -3.5, -1.0, 0.0, 0.001, 0.5, 2.0, 7.0, 1e9]);
    let limits = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];
    let numbers = (
        prop::sample::select(vec![
            json!("number"),
            json!("integer"),
            json!(["number", "null"]),
        ]),
        prop::option::of((prop::sample::select(limits.to_vec()), limit)),
        prop::option::of(prop::sample::select(vec![0.01, 0.5, 1.0, 3.0, 7.0])),
    )
        .prop_map(|(kind, limit, multiple)| {
            let mut schema = json!({"type": kind});
            if let Some((key, value)) = limit {
                schema[key] = json!(value);
            }
            if let Some(multiple) = multiple {
                schema["multipleOf"] = json!(multiple);
            }
            schema
        });
    let formats = vec![
        "date-time",
        "time",
        "duration",
        "email",
        "hostname",
        "uuid",
        "password",
        "x",
    ];
    let patterns = vec![
        "^[0-9]+$",
        "a+b",
        "^x.*y$",
        r"^(ab|\d)+c$",
        r"\w",
        "^[^,]*,$",
    ];
    prop_oneof![
        4 => numbers,
        1 => prop::sample::select(formats).prop_map(|f| json!({"type": "string", "format": f})),
        1 => prop::sample::select(patterns).prop_map(|p| json!({"type": "string", "pattern": p})),
        1 => prop::sample::select(vec![
            json!({}),
            json!(true),
            json!({"type": "string"}),
            json!({"type": "string", "minLength": 3.0}),
            json!({"type": ["string", "boolean"], "maxLength": 100_000}),
            json!({"enum": ["a", 3, null, {"b": [1]}]}),
            json!({"const": "c"}),
            json!({"minLength": 2}),
            json!({"$ref": "#/$defs/list"}),
            json!({"$ref": "#/$defs/sum"}),
        ]),
    ]
}

fn any_schema() -> impl Strategy<Value = Value> {
    let tree = leaf().prop_recursive(3, 12, 3, |inner| {
        let more = prop::option::of(inner.clone());
        let two = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            (
                inner.clone(),
                prop::option::of(0u64..6),
                prop::option::of(6u64..9)
            )
                .prop_map(|(items, least, most)| {
                    let mut schema = json!({"type": "array", "items": items});
                    if let Some(least) = least {
                        schema["minItems"] = json!(least as f64);
                    }
                    if let Some(most) = most {
                        schema["maxItems"] = json!(most);
                    }
                    schema
                }),
            (two.clone(), any::<bool>(), more).prop_map(|(values, required, more)| {
                let names = ["a", "b"];
                let properties: serde_json::Map<String, Value> =
                    names.iter().map(|n| (*n).to_owned()).zip(values).collect();
                let mut schema = json!({"type": "object"});
                if required {
                    schema["required"] = properties.keys().map(|k| json!(k)).collect();
                }
                schema["properties"] = Value::Object(properties);
                if let Some(more) = more {
                    schema["additionalProperties"] = more;
                }
                schema
            }),
            two.clone().prop_map(|options| json!({"anyOf": options})),
            two.prop_map(|items| json!({"type": "array", "prefixItems": items})),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values})),
        ]
    });
    tree.prop_map(|schema| {
        json!({"type": "object", "required": ["n"], "properties": {"n": schema}, "$defs": {
            "list": {"type": "object", "required": ["next"], "properties": {
                "next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "number"}]}}},
            "sum": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/sum"}, "minItems": 2},
                {"type": "number", "exclusiveMinimum": 0}]},
        }})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_schema_in_any_spelling_ends(schema in any_schema(), seed in any::<u64>()) {
        let spec = GrammarSpec::JsonSchema(schema.clone());
        let grammar = match small_compiler().compile(&spec) {
            Ok(grammar) => grammar,
            // No value fits, or it is beyond a limit: told before anything is written.
            Err(error) => {
                prop_assert!(error.to_string().len() < 260, "{}", error);
                return Ok(());
            }
        };
        for taste in [Taste::Digits, Taste::Zeros, Taste::Structure, Taste::Random(seed)] {
            let text = written(&grammar, taste, 8000);
            let text = text.map_err(|text| {
                TestCaseError::fail(format!("{schema} {taste:?}: no end: {text}"))
            })?;
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert!(parsed.is_ok(), "{}: {}", schema, text);
        }
    }
}
