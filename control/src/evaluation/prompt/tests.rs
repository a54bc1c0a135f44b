#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn compile(content: &str) -> Result<Prompt, PromptError> {
    let message = |role: &str, content: &str| MessageTemplate {
        role: role.into(),
        content: content.into(),
    };
    Prompt::compile(
        vec![message("system", "Be brief."), message("user", content)],
        PromptLimits::default(),
    )
}

fn render(content: &str, row: &Value) -> Result<String, PromptError> {
    let messages = compile(content)?.render("row-7", row.as_object().unwrap())?;
    Ok(messages[1].content.clone())
}

#[test]
fn a_row_becomes_messages() {
    let template = "{% for item in items %}- {{ item.name }}: {{ item.price }}\n{% endfor %}<{{ question }}>\n";
    let row = json!({"items": [{"name": "茶", "price": 3.5}, {"name": "x & y", "price": 2}], "question": "合计?"});
    assert_eq!(
        render(template, &row).unwrap(),
        "- 茶: 3.5\n- x & y: 2\n<合计?>\n"
    );
    let messages = compile("hi").unwrap().render("r", &Map::new()).unwrap();
    assert_eq!(
        messages[0],
        Message {
            role: "system".into(),
            content: "Be brief.".into()
        }
    );
}

#[test]
fn json_is_written_for_models_not_for_web_pages() {
    let row = json!({"order": {"note": "<a> & 'b' 茶", "n": 1}});
    assert_eq!(
        render("{{ order | tojson }}", &row).unwrap(),
        r#"{"note":"<a> & 'b' 茶","n":1}"#
    );
}

#[test]
fn a_missing_column_is_named_with_its_row() {
    let row = json!({"customer": {"name": "Ada"}, "text": "hi"});
    let missing = |template| render(template, &row).unwrap_err().to_string();
    assert_eq!(
        missing("{{ txt }}"),
        "row row-7: messages[1] uses `txt`, which the row does not have (it has: customer, text)"
    );
    assert!(missing("{{ customer.email }}").contains("`customer.email`"));
    assert!(missing("{% for x in rows %}{{ x }}{% endfor %}").contains("`rows`"));
    assert!(missing("{% if flag %}a{% endif %}").contains("`flag`"));
}

#[test]
fn an_optional_column_can_be_asked_for() {
    let row = json!({"text": "hi"});
    assert_eq!(
        render(
            "{% if context is defined %}{{ context }} {% endif %}{{ text }}",
            &row
        )
        .unwrap(),
        "hi"
    );
    assert_eq!(
        render("{{ context | default('none') }}", &row).unwrap(),
        "none"
    );
}

#[test]
fn mistakes_show_when_compiling() {
    let fault = compile("line one\n{{ unclosed ").unwrap_err();
    assert!(
        matches!(&fault, PromptError::Syntax { message: 1, .. }),
        "{fault}"
    );
    assert!(fault.to_string().contains("line 2"), "{fault}");
    assert_eq!(
        Prompt::compile(vec![], PromptLimits::default()).unwrap_err(),
        PromptError::NoMessages
    );
    let no_role = vec![MessageTemplate {
        role: " ".into(),
        content: String::new(),
    }];
    assert_eq!(
        Prompt::compile(no_role, PromptLimits::default()).unwrap_err(),
        PromptError::NoRole { message: 0 }
    );
}

#[test]
fn a_template_can_neither_hang_nor_flood() {
    let row = json!({"text": "x".repeat(1_000)});
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{% set c = b %}{% endfor %}{% endfor %}";
    assert!(matches!(
        render(endless, &row),
        Err(PromptError::OutOfFuel { fuel: 100_000, .. })
    ));
    let flood = "{% for a in range(9000) %}{{ text }}{% endfor %}";
    assert!(matches!(
        render(flood, &row),
        Err(PromptError::TooLong { .. })
    ));
}

#[test]
fn other_failures_say_what_went_wrong() {
    let fault = render("{{ text + 1 }}", &json!({"text": "a"}))
        .unwrap_err()
        .to_string();
    assert!(
        fault.starts_with("row row-7: messages[1] cannot be rendered"),
        "{fault}"
    );
}

#[test]
fn the_digest_is_of_the_words_alone() {
    let digest = |content: &str| compile(content).unwrap().digest();
    assert_eq!(digest("{{ a }}"), digest("{{ a }}"));
    assert_ne!(digest("{{ a }}"), digest("{{ a }} "));
    assert!(digest("").starts_with("sha256:"));
}
