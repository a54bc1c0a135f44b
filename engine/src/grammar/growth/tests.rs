use super::*;

const BOUNDS: Bounds = Bounds {
    number_chars: 3,
    string_bytes: 4,
    pattern_chars: 4,
    items: 3,
    depth: 3,
    bytes: 40,
};

fn wish(form: Form, text: &str) -> Wish {
    let mut growth = Growth::new(form, BOUNDS);
    growth.push(text.as_bytes());
    growth.wish()
}

#[test]
fn what_has_reached_its_bound_is_to_end() {
    let cases = [
        ("", Wish::Free),
        (r#"{"a": 12"#, Wish::Free),
        (r#"{"a": 123"#, Wish::NoNumber),
        (r#"{"a": 123,"#, Wish::Free),
        (r#"{"a": -1e"#, Wish::NoNumber),
        (r#""abc"#, Wish::Free),
        (r#""abcd"#, Wish::Quote),
        // An escaped quote ends nothing.
        (r#""a\"bc"#, Wish::Quote),
        (r#""a\\""#, Wish::Free),
        ("[1,2", Wish::Free),
        ("[1,2,", Wish::Close),
        ("[1,2,3", Wish::LastNumber),
        ("[1,2,\"", Wish::LastString),
        ("[1,2,3]", Wish::Free),
        ("[[1,2,", Wish::Close),
        ("[[1,2,3],", Wish::Free),
        ("[1,2,{", Wish::NoReturn),
        ("[1,2,{\"a\":5", Wish::NoReturn),
        ("[[[", Wish::Flat),
        ("[[[]", Wish::Free),
        // Commas in strings are no elements.
        (r#"["a,b,c""#, Wish::Free),
    ];
    for (text, expected) in cases {
        assert_eq!(wish(Form::Json, text), expected, "{text}");
    }
    let long = format!("[{}", r#""a","#.repeat(12));
    assert_eq!(wish(Form::Json, &long), Wish::Close);
}

#[test]
fn free_text_around_calls_is_free() {
    let form = Form::Calls {
        mark: "<call>",
        bare: false,
    };
    let text = "{".repeat(50);
    assert_eq!(wish(form, &text), Wish::Free);
    assert_eq!(wish(form, "<ca<call>{\"a\": 123"), Wish::NoNumber);
    assert_eq!(wish(form, "<call>[1,2,3] and [[[[[["), Wish::Free);
    assert_eq!(wish(form, "{\"a\": 123"), Wish::Free);
    let bare = Form::Calls {
        mark: "<call>",
        bare: true,
    };
    assert_eq!(wish(bare, "{\"a\": 123"), Wish::NoNumber);
    assert_eq!(wish(bare, " {\"a\": 123"), Wish::Free);
    let text = Form::Text { bytes: 5 };
    assert_eq!(wish(text, "[[[["), Wish::Free);
    assert_eq!(wish(text, "[[[[["), Wish::End);
}

#[test]
fn a_mask_is_held_to_what_ends_if_the_grammar_allows_any() {
    let words: Vec<Vec<u8>> = [
        "1", "]", ",", "]]", "],[", "\"", "\"]", "\"a", "{", "a", "\u{fffd}", "\",",
    ]
    .iter()
    .map(|word| word.as_bytes().to_vec())
    .collect();
    let classes = TokenClasses::of(&words, &[10]);
    let held = |text: &str, allowed: &[u32]| {
        let mut mask = SimpleVob::alloc(words.len());
        allowed.iter().for_each(|id| mask.allow_token(*id));
        let mut growth = Growth::new(Form::Json, BOUNDS);
        growth.push(text.as_bytes());
        classes.restrict(mask, &growth).to_list()
    };
    assert_eq!(held("[1", &[0, 1, 2]), [0, 1, 2]);
    assert_eq!(held("[123", &[0, 1, 2]), [1]);
    assert_eq!(held("[123", &[0, 2]), [2]);
    assert_eq!(held("[123", &[0]), [0]);
    assert_eq!(held("[1,1,", &[0, 1, 2, 3, 4]), [1, 3]);
    // A value that has no others in it, where one is required.
    assert_eq!(held("[1,1,", &[0, 5, 7, 8]), [0, 5, 7]);
    assert_eq!(held("[[[", &[0, 5, 7, 8]), [0, 5, 7]);
    // What was held back does not come by a token that ends one thing and begins the next.
    assert_eq!(held("[1,1,[1", &[0, 1, 2, 4]), [0, 1, 2]);
    assert_eq!(held("[1,1,\"a", &[5, 6, 9, 11]), [5, 6, 9]);
    assert_eq!(held("[[[", &[8]), [8]);
    assert_eq!(held("[\"abcd", &[5, 6, 7, 9]), [5, 6]);
}
