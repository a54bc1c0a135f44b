#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const LIMITS: Limits = Limits {
    steps: 500_000,
    memory: 64 << 20,
    text: 16 << 20,
};

fn render(source: &str, variables: &Value) -> Result<String, Fault> {
    let variables: Map<String, Value> = variables.as_object().cloned().unwrap_or_default();
    Template::new(source)?.render(&variables, LIMITS)
}

fn refused(source: &str) -> String {
    match render(source, &json!({})) {
        Ok(text) => panic!("{source}: {} bytes", text.len()),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn dates_are_formatted_as_by_c() {
    // 2024-02-29 13:05:09 UTC, a Thursday.
    let at = 1_709_211_909;
    let format = |f: &str| strftime::strftime(f, at);
    assert_eq!(format("%d %b %Y"), "29 Feb 2024");
    assert_eq!(
        format("%A, %B %-d, %y %H:%M:%S %I%p %j %%"),
        "Thursday, February 29, 24 13:05:09 01PM 060 %"
    );
    assert_eq!(format("%F %T %Q %"), "2024-02-29 13:05:09 %Q %");
    assert_eq!(
        format("%D %R %c %u"),
        "02/29/24 13:05 Thu Feb 29 13:05:09 2024 4"
    );
    assert_eq!(strftime::strftime("%F %a", 0), "1970-01-01 Thu");
    assert_eq!(strftime::strftime("%F %-H", 1_735_689_599), "2024-12-31 23");
}

#[test]
fn slices_and_positions_count_characters() {
    let text = json!({"t": "中文a中", "e": "", "l": [0, 1, 2, 3, 4]});
    for (expression, expected) in [
        ("e[::-1]", ""),
        ("t[::-1]", "中a文中"),
        ("t[2:0:-1]", "a文"),
        ("t[-2:]", "a中"),
        ("t[::2]", "中a"),
        ("t[::-2]", "中文"),
        ("t[10:]", ""),
        ("t[::99999999999999999999]", "中"),
        ("t[-1]", "中"),
        ("t[9] is defined", "False"),
        ("t.find('a')", "2"),
        ("t.rfind('中')", "3"),
        ("t.find('中', 1)", "3"),
        ("t.find('x')", "-1"),
        ("t.index('文')", "1"),
        ("t.count('中')", "2"),
        ("t.count('')", "5"),
        ("t.center(7) | length", "7"),
        ("t.split('a')", "['中文', '中']"),
        ("t.startswith('a', 2)", "True"),
        ("t.endswith(('x', '中'))", "True"),
        ("l[::-1]", "[4, 3, 2, 1, 0]"),
        ("l[4:1:-2]", "[4, 2]"),
        ("l[-99:2]", "[0, 1]"),
        ("range(9)[::-3] | list", "[8, 5, 2]"),
    ] {
        let source = format!("{{{{ {expression} }}}}");
        assert_eq!(render(&source, &text).unwrap(), expected, "{expression}");
    }
}

#[test]
fn values_of_python_print_as_there() {
    for (expression, expected) in [
        ("(1, 'a')", "(1, 'a')"),
        ("(1,)", "(1,)"),
        ("{'k': none}.items()", "dict_items([('k', None)])"),
        ("['a', \"it's\"] ~ ''", "['a', \"it's\"]"),
        (
            "'%s|%5.2f|%-4d|%x' % ('a', 3.14159, 7, 255)",
            "a| 3.14|7   |ff",
        ),
        (
            "'{:>6}|{:,}|{0[1]}|{k!r}'.format([1, 'b'], 1234567, k='x')",
            "fails",
        ),
        (
            "'{:>6}|{:,}|{k!r}'.format('a', 1234567, k='x')",
            "     a|1,234,567|'x'",
        ),
        ("1 < 2 < 3", "True"),
        ("1 < 3 < 2", "False"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7 // -2", "-4"),
        ("2 ** -1", "0.5"),
        ("1e16", "1e+16"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("true + 1", "2"),
        ("'a' 'b'", "ab"),
        ("'<' | e + '<'", "&lt;&lt;"),
        ("{'items': 1}.items is callable", "True"),
        ("{'items': 1}['items']", "1"),
        ("[1, 2].append is defined", "False"),
        ("([1] | map('string')) is iterable", "True"),
        ("1 if ([] | select) else 2", "1"),
    ] {
        let source = format!("{{{{ {expression} }}}}");
        let rendered = render(&source, &json!({})).unwrap_or_else(|_| "fails".to_owned());
        assert_eq!(rendered, expected, "{expression}");
    }
}

#[test]
fn variables_live_as_long_as_in_jinja2() {
    for (source, expected) in [
        (
            "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{% endfor %}{{ x }}",
            "111",
        ),
        (
            "{% for i in [1] %}{% if true %}{% set y = 2 %}{% endif %}{{ y }}{% endfor %}{{ y }}",
            "2",
        ),
        (
            "{% generation %}{% set z = 1 %}{{ z }}{% endgeneration %}{{ z }}",
            "1",
        ),
        (
            "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
            "12",
        ),
        (
            "{% macro m(a, b=a ~ 'c') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{{ m(b=1, a=2) }}",
            "xxc21",
        ),
        (
            "{% macro m() %}[{{ caller('y') }}]{% endmacro %}{% set t = 1 %}{% call(a) m() %}{{ a }}{{ t }}{% endcall %}",
            "[y1]",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "6",
        ),
        (
            "{% for i in [3, 4, 5] if i != 4 %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% else %}none{% endfor %}",
            "1/2False 2/2True ",
        ),
        (
            "{% for x in [[1, [2]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
            "(1(2))",
        ),
        (
            "{% set t %}a{{ 1 }}{% endset %}{{ t | upper }}{% filter upper %}b{% endfilter %}",
            "A1B",
        ),
        (
            "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
            "12False",
        ),
        ("{% raw %}{{ x }}{% endraw %}{# gone #}|", "{{ x }}|"),
    ] {
        assert_eq!(render(source, &json!({})).unwrap(), expected, "{source}");
    }
}

#[test]
fn whitespace_goes_where_jinja2_takes_it() {
    for (source, expected) in [
        ("  {% if true %}\nx\n  {% endif %}\n  y\n", "x\n  y"),
        ("a  {%- if true -%}  b  {%- endif -%}  c", "abc"),
        ("a  {%+ if true %}\nb{% endif +%}\nc", "a  b\nc"),
        ("  {# c #}\nx", "x"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("{{ 1 -}}  x  {{- 2 }}\n", "1x2"),
        ("x {% raw -%}  y  {%- endraw %} z", "x y z"),
    ] {
        assert_eq!(render(source, &json!({})).unwrap(), expected, "{source:?}");
    }
}

#[test]
fn a_template_takes_no_more_than_it_may() {
    let double = |what: &str, twice: &str, times: usize| {
        format!(
            "{{% set ns = namespace(x={what}) %}}{{% for i in range({times}) %}}{{% set ns.x = {twice} %}}{{% endfor %}}done"
        )
    };
    for source in [
        double("'x'", "ns.x ~ ns.x", 60),
        double("'x'", "ns.x + ns.x", 60),
        double("'x'", "ns.x * 2", 60),
        double("'x'", "[ns.x, ns.x] | join", 60),
        double("'x'", "'%s%s' % (ns.x, ns.x)", 60),
        double("'x'", "'{0}{0}'.format(ns.x)", 60),
        double("'x'", "ns.x.replace('x', 'xx')", 60),
        double("[1]", "ns.x + ns.x", 60),
        double("[1]", "ns.x * 2", 60),
        double("[1]", "[ns.x, ns.x] | tojson", 60),
        double("'a' * 1000000", "ns.x | list", 1),
        double("'a' * 10000000", "ns.x.split('a')", 1),
        double("[]", "[ns.x]", 400),
        double("[]", "{'k': ns.x}", 400),
        double("[]", "namespace(p=ns.x)", 90_000) + "{{ ns.x }}",
        double("'1' * 9000000", "('[' ~ ('1,' * 4000000) ~ '1]') | fromjson", 1),
        "{{ '%999999999d' | format(1) }}".to_owned(),
        "{{ '%.999999999f' | format(1) }}".to_owned(),
        "{{ '%*d' | format(999999999, 1) }}".to_owned(),
        "{{ '{:>999999999}'.format(1) }}".to_owned(),
        "{{ 'a'.center(999999999) }}{{ 'a' | indent(999999999, true) }}".to_owned(),
        "{{ range(90000) | join('b' * 100000) }}".to_owned(),
        "{{ [1] | tojson(indent=999999999) }}".to_owned(),
        "{{ [1] | batch(999999999, 0) | list }}{{ [1] | slice(999999999) | list }}".to_owned(),
        "{{ 'a' * 999999999999 }}{{ [1] * 999999999999 }}".to_owned(),
        "{{ range(999999999) | list }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(10000) %}{{ 'x' * 10000 }}{% endfor %}".to_owned(),
        "{% set t = 'ab' * 8000000 %}{% for a in range(90000) %}{% if 'c' in t %}{% endif %}{% endfor %}".to_owned(),
        "{{ 99999999999999999999 ** 9999 }}".to_owned(),
    ] {
        let variables = json!({});
        match render(&source, &variables) {
            Ok(text) => panic!("{source}: {} bytes", text.len()),
            Err(fault) => assert_eq!(fault.kind, FaultKind::TooMuch, "{source}: {fault}"),
        }
    }
}

#[test]
fn what_is_nested_too_deeply_is_not_read() {
    let deep = |open: &str, close: &str| open.repeat(5_000) + "1" + &close.repeat(5_000);
    for source in [
        format!("{{{{ {} }}}}", deep("(", ")")),
        format!("{{{{ {} }}}}", deep("[", "]")),
        format!("{{{{ {} }}}}", deep("-", "")),
        format!("{{{{ {} }}}}", deep("not ", "")),
        format!("{{{{ 1{} }}}}", "+1".repeat(5_000)),
        format!("{{{{ x{} }}}}", ".x".repeat(5_000)),
        format!("{{{{ x{} }}}}", "|trim".repeat(5_000)),
        deep("{% if 1 %}", "{% endif %}"),
    ] {
        let why = refused(&source);
        assert!(why.contains("levels"), "{why}");
    }
}

#[test]
fn namespaces_that_hold_each_other_are_let_go() {
    let source = "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a.b.a.b is defined }}";
    assert_eq!(render(source, &json!({})).unwrap(), "True");
    let source = "{% set n = namespace(n=none) %}{% for i in range(50000) %}{% set n.n = namespace(n=n.n) %}{% endfor %}made";
    assert_eq!(render(source, &json!({})).unwrap(), "made");
}

proptest! {
    /// Whatever stands in a template, it renders or it is refused.
    #[test]
    fn no_template_panics(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{{ ", " }}", "{% ", " %}", "{%- if ", "{% endif %}", "{% for x in ", "{% endfor %}", "{% set x = ",
            "m", "x", "'a中😀'", "\"\"", "1", "-3", "2.5", "none", "true", "[", "]", "(", ")", "{", "}", ":", ",",
            "[::-1]", "[1:", "[-1]", ".find('中')", ".split(", ".items()", "|tojson", "|join", "|map(attribute='a')",
            "|selectattr('a')", "|sort", "|first", "|length", " ~ ", " + ", " * ", " % ", " // ", " ** ", " in ",
            " is ", " not ", "defined", "mapping", " if ", " else ", "loop.index", "{#", "#}", "{% raw %}", "\n", " ",
            "-%}", "|indent(2)", "|format(", ".format(", "'%s %5d {} {0:>4}'", "range(5)", "namespace(a=1)", "m.a",
        ]), 1..14),
    ) {
        let source = pieces.concat();
        let variables = json!({"m": {"a": [1, "中"], "b": ""}, "x": "é"});
        let rendered = std::panic::catch_unwind(|| render(&source, &variables));
        prop_assert!(rendered.is_ok(), "{}", source);
    }

    #[test]
    fn slices_are_pythons(
        text in "[a中😀]{0,6}",
        start in prop::option::of(-9_i64..9), stop in prop::option::of(-9_i64..9),
        step in prop::option::of(prop::sample::select(vec![-3_i64, -2, -1, 1, 2, 3])),
    ) {
        let part = |it: Option<i64>| it.map(|it| it.to_string()).unwrap_or_default();
        let source = format!("{{{{ t[{}:{}:{}] }}}}", part(start), part(stop), part(step));
        let characters: Vec<char> = text.chars().collect();
        let length = i64::try_from(characters.len()).unwrap();
        let step = step.unwrap_or(1);
        let bound = |at: i64| if at < 0 { at + length } else { at };
        let (mut at, end) = match step > 0 {
            true => (start.map_or(0, |it| bound(it).max(0)), stop.map_or(length, |it| bound(it).min(length))),
            false => (start.map_or(length - 1, |it| bound(it).min(length - 1)), stop.map_or(-1, |it| bound(it).max(-1))),
        };
        let mut expected = String::new();
        while (step > 0 && at < end) || (step < 0 && at > end) {
            expected.push(characters[usize::try_from(at).unwrap()]);
            at += step;
        }
        prop_assert_eq!(render(&source, &json!({"t": text})).unwrap(), expected);
    }
}
