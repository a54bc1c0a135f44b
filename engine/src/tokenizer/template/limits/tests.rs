#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Map, json};

use super::super::{ChatTemplate, TemplateError};
use crate::tokenizer::SpecialTokens;

/// A template that is asked one short question.
fn render(source: &str) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
    template.render(
        &[json!({"role": "user", "content": "hi"})],
        None,
        true,
        &Map::new(),
    )
}

fn refused(source: &str) -> String {
    match render(source) {
        Ok(text) => panic!("{source}: {} bytes", text.len()),
        Err(error) => error.to_string(),
    }
}

/// A list in a list in a list …, made by a loop that does as much in a step as the syntax lets it.
fn nested(then: &str) -> String {
    let (open, close) = ("[".repeat(60), "]".repeat(60));
    format!(
        "{{% set ns = namespace(l=[]) %}}{{% for i in range(3500) %}}{{% set ns.l = {open}ns.l{close} %}}{{% endfor %}}{then}"
    )
}

#[test]
fn a_value_may_be_nested_as_deep_as_there_are_steps() {
    // Made and dropped.
    assert_eq!(render(&nested("made")).unwrap(), "made");
    // Walked by what the language itself does with it.
    assert_eq!(render(&nested("{{ ns.l == ns.l }}")).unwrap(), "True");
    assert!(render(&nested("{{ (ns.l ~ '') | length > 1000 }}")).is_ok());
    assert!(refused(&nested("{{ ns.l | tojson }}")).contains("nested too deeply"));
    assert!(refused(&nested("{{ ns.l }}")).contains("nested too deeply"));
    assert!(refused(&nested("{{ ns.l | string }}")).contains("nested too deeply"));
}

#[test]
fn a_deep_list_runs_out_of_steps_first() {
    let deep = "{% set ns=namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l=[ns.l] %}{% endfor %}{{ ns.l|tojson|length }}";
    assert!(refused(deep).contains("too many steps"));
}

#[test]
fn what_multiplies_a_text_is_refused_before_it_is_done() {
    for source in [
        "{{ '%999999999d' | format(1) }}",
        "{{ '%.999999999f' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ range(90000) | join('b' * 100000) }}",
        "{{ ('b' * 100000).join(range(90000)) }}",
        "{{ 'a\na' | indent(999999999) }}",
        "{{ 'a' * 999999999999 }}",
        "{% set ns=namespace(l=['x' * 1000]) %}{% for i in range(40) %}{% set ns.l=[ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set ns=namespace(l=['x' * 1000]) %}{% for i in range(40) %}{% set ns.l=[ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}",
    ] {
        let began = std::time::Instant::now();
        let why = refused(source);
        assert!(began.elapsed().as_secs() < 10, "{source}: {why}");
    }
}

#[test]
fn what_templates_do_is_done_as_before() {
    for (source, text) in [
        (
            "{{ '%05.2f|%-6s|' | format(3.14159, 'ab') }}",
            "03.14|ab    |",
        ),
        ("{{ '{:>6}'.format('ab') }}", "    ab"),
        ("{{ 'a-b-c' | replace('-', '+') }}", "a+b+c"),
        ("{{ 'a-b-c'.replace('-', '+') }}", "a+b+c"),
        ("{{ [1, 'b', 3] | join(', ') }}", "1, b, 3"),
        ("{{ ', '.join(['a', 'b']) }}", "a, b"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ 'ab' * 3 }}", "ababab"),
    ] {
        assert_eq!(render(source).unwrap(), text, "{source}");
    }
}

#[test]
fn a_long_conversation_has_more_steps() {
    let source =
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ (m.content | trim) ~ '\n' }}{% endfor %}";
    let template = ChatTemplate::new(source, SpecialTokens::default()).unwrap();
    let message = json!({"role": "user", "content": "My VPN is down, what now?"});
    let messages = vec![message; 10_000];
    let text = template.render(&messages, None, true, &Map::new()).unwrap();
    assert_eq!(text.lines().count(), 10_000);
}
