//! What an upstream's error must not tell a client: addresses of the inside, keys, and the name
//! by which the upstream knows the model. Pure.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::remote::reach::is_public;

/// What stands in the place of an address.
const PLACE: &str = "[upstream]";
/// What stands in the place of a key.
const KEY: &str = "[key]";

/// What is known to be of the inside, beside what looks like it.
#[derive(Debug, Clone, Default)]
pub struct Scrub {
    /// Hosts of the upstreams, in lower case, without a port.
    hosts: Vec<Box<str>>,
    key: Option<Box<str>>,
    /// The upstreams' name of the model.
    model: Option<Box<str>>,
}

/// Domains that resolve inside a house only.
const INSIDE: [&str; 11] = [
    ".local",
    ".internal",
    ".localhost",
    ".localdomain",
    ".svc",
    ".lan",
    ".corp",
    ".intranet",
    ".home",
    ".private",
    ".home.arpa",
];

impl Scrub {
    /// What to look for. `hosts` may have a port.
    pub fn new<'a>(
        hosts: impl Iterator<Item = &'a str>,
        key: Option<&str>,
        model: Option<&str>,
    ) -> Self {
        Self {
            hosts: hosts
                .map(|it| host_of(it).to_ascii_lowercase().into())
                .collect(),
            key: key.filter(|it| !it.is_empty()).map(Into::into),
            model: model.map(Into::into),
        }
    }

    /// JSON with every text in it scrubbed; `None` where nothing is to be changed. `asked` is the
    /// name of the model that was asked for, as a JSON string.
    #[must_use]
    pub fn json(&self, json: &[u8], asked: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut value: Value = serde_json::from_slice(json).ok()?;
        let asked = asked.and_then(|asked| serde_json::from_slice::<String>(asked).ok());
        let changed = self.value(&mut value, asked.as_deref());
        changed.then(|| value.to_string().into_bytes())
    }

    /// Scrubs every text of a value; whether there was anything to scrub.
    pub fn value(&self, value: &mut Value, asked: Option<&str>) -> bool {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
            Value::String(text) => match self.text(text, asked) {
                Cow::Borrowed(_) => false,
                Cow::Owned(other) => {
                    *text = other;
                    true
                }
            },
            Value::Array(items) => items
                .iter_mut()
                .fold(false, |changed, item| self.value(item, asked) | changed),
            Value::Object(members) => members
                .values_mut()
                .fold(false, |changed, item| self.value(item, asked) | changed),
        }
    }

    /// A text without what it must not tell.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str, asked: Option<&str>) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        if let Some(key) = &self.key
            && text.contains(&**key)
        {
            out = Cow::Owned(text.replace(&**key, KEY));
        }
        if let (Some(theirs), Some(ours)) = (&self.model, asked)
            && **theirs != *ours
        {
            let named = renamed(&out, theirs, ours);
            if let Some(named) = named {
                out = Cow::Owned(named);
            }
        }
        match self.words(&out) {
            Some(scrubbed) => Cow::Owned(scrubbed),
            None => out,
        }
    }

    /// Word by word: addresses and what looks like a key.
    fn words(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            let word = &rest[..rest.find(is_border).unwrap_or(rest.len())];
            if let Some(with) = self.instead_of(word) {
                out += &text[from..at];
                out += with;
                from = at + word.len();
            }
            let border = text[at + word.len()..].chars().next();
            at += word.len() + border.map_or(0, char::len_utf8);
        }
        (from > 0).then(|| out + &text[from..])
    }

    fn instead_of(&self, word: &str) -> Option<&'static str> {
        let plain = word.trim_end_matches(['.', ':', '!', '?']);
        if looks_like_a_key(plain) {
            return Some(KEY);
        }
        // A word may be `http://host:port/path`, `host:port`, `host='10.0.0.5'` or a path.
        let place = plain.split_once("://").map_or(plain, |(_, rest)| rest);
        let place = place.split(['/', '?', '#']).next().unwrap_or_default();
        let place = place.rsplit('@').next().unwrap_or_default();
        self.is_inside(place).then_some(PLACE)
    }

    fn is_inside(&self, place: &str) -> bool {
        if let Ok(address) = place.parse::<SocketAddr>() {
            return self.is_inside_address(address.ip());
        }
        let host = host_of(place);
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.is_inside_address(address);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let has_port = place.len() > host.len();
        host == "localhost"
            || INSIDE
                .iter()
                .any(|domain| host.len() > domain.len() && host.ends_with(domain))
            || self
                .hosts
                .iter()
                // A name without a dot may be a word of the language as well.
                .any(|it| **it == *host && (has_port || it.contains(['.', '-', '_'])))
    }

    fn is_inside_address(&self, address: IpAddr) -> bool {
        let is_it = |host: &str| host.parse().is_ok_and(|it: IpAddr| it == address);
        !is_public(address) || self.hosts.iter().any(|host| is_it(host))
    }
}

/// Where a word ends.
fn is_border(c: char) -> bool {
    c.is_whitespace() || "\"'`<>(){}|,;=\\".contains(c)
}

/// Without its port, and without the brackets of an IPv6 address.
fn host_of(place: &str) -> &str {
    if let Some((address, _)) = place.strip_prefix('[').and_then(|it| it.split_once(']')) {
        return address;
    }
    match place.split_once(':') {
        // An address of IPv6 has several.
        Some((host, port)) if !port.contains(':') => host,
        _ => place,
    }
}

/// In the form of OpenAI's keys and of many others', also where servers show a part of it only.
fn looks_like_a_key(word: &str) -> bool {
    const SHORTEST: usize = 8;
    let prefixed = ["sk-", "sk_", "hf_", "gsk_", "nvapi-", "AIza", "xai-", "eyJ"]
        .iter()
        .any(|prefix| word.starts_with(prefix));
    word.len() >= SHORTEST
        && (prefixed || word.contains("***") && word.contains(char::is_alphanumeric))
}

/// With the asked name where the upstream's stands in quotes, or alone.
fn renamed(text: &str, theirs: &str, ours: &str) -> Option<String> {
    if text == theirs {
        return Some(ours.to_owned());
    }
    let mut out = None;
    for quote in ['`', '\'', '"'] {
        let quoted = format!("{quote}{theirs}{quote}");
        let current = out.as_deref().unwrap_or(text);
        if current.contains(&quoted) {
            out = Some(current.replace(&quoted, &format!("{quote}{ours}{quote}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub() -> Scrub {
        let hosts = ["vllm-0:8000", "10.9.8.7:80", "gpu", "api.example.com"];
        Scrub::new(hosts.into_iter(), Some("hunter2"), Some("meta/llama"))
    }

    #[test]
    fn addresses_and_keys_are_left_out() {
        let cases = [
            (
                "connect to http://10.0.0.5:8000/v1/x failed.",
                "connect to [upstream] failed.",
            ),
            (
                "HTTPConnectionPool(host='10.0.0.5', port=8000)",
                "HTTPConnectionPool(host='[upstream]', port=8000)",
            ),
            ("at 10.0.0.5:8000.", "at [upstream]"),
            ("[::1]:80 and fd00::1", "[upstream] and [upstream]"),
            ("vllm-0:8000, vllm-0", "[upstream], [upstream]"),
            ("gpu:8000 has no gpu", "[upstream] has no gpu"),
            ("db.prod.svc.cluster.local", "[upstream]"),
            ("https://api.example.com/v1", "[upstream]"),
            ("http://user:pw@localhost/", "[upstream]"),
            ("key hunter2 is wrong", "key [key] is wrong"),
            (
                "Incorrect API key provided: sk-up****cret.",
                "Incorrect API key provided: [key]",
            ),
            ("Incorrect: ab****cret", "Incorrect: [key]"),
        ];
        for (text, expected) in cases {
            assert_eq!(scrub().text(text, None), expected);
        }
    }

    #[test]
    fn what_tells_nothing_is_left_as_it_is() {
        for text in [
            "max_tokens must be at least 1, got -5.",
            "see https://platform.openai.com/docs and 8.8.8.8",
            "temperature: 2.5 > 2.0; n=1; a/b; 中文",
            "This model's maximum context length is 4096 tokens.",
            "** bold **",
            "",
        ] {
            assert!(
                matches!(scrub().text(text, Some("ours")), Cow::Borrowed(_)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_model_has_the_name_that_was_asked_for() {
        let json = br#"{"error":{"message":"The model `meta/llama` is not meta/llama","param":"meta/llama"}}"#;
        let scrubbed = scrub().json(json, Some(b"\"desk\"")).unwrap_or_default();
        let expected =
            r#"{"error":{"message":"The model `desk` is not meta/llama","param":"desk"}}"#;
        assert_eq!(String::from_utf8_lossy(&scrubbed), expected);
        assert_eq!(scrub().json(b"{\"a\":1}", None), None);
        assert_eq!(scrub().json(b"no json", None), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|[\"'`:/.\\[\\]@]|10\\.0\\.0\\.1){0,60}") {
            let once = scrub().text(&text, Some("ours")).into_owned();
            proptest::prop_assert_eq!(scrub().text(&once, Some("ours")), once.clone());
        }
    }
}
