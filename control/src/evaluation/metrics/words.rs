//! How text becomes tokens, exactly as the reference implementations do it.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// sacreBLEU's tokenizers; a BLEU without its tokenizer's name cannot be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BleuTokenizer {
    /// mteval-v13a's, for languages that put spaces between words.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// Chinese characters apart, the rest as `13a`.
    #[serde(rename = "zh")]
    Zh,
    /// Every character apart.
    #[serde(rename = "char")]
    Char,
    /// The text is tokenised already: split at white space.
    #[serde(rename = "none")]
    None,
}

impl BleuTokenizer {
    #[must_use]
    pub fn tokens(self, text: &str) -> Vec<String> {
        let text = text.trim_end();
        match self {
            Self::V13a => split(&mteval(&unescape(text))),
            Self::Zh => split(&mteval(&spaced_chinese(text.trim()))),
            Self::Char => text
                .chars()
                .filter(|c| !c.is_whitespace())
                .map(String::from)
                .collect(),
            Self::None => split(text),
        }
    }

    /// The name sacreBLEU prints in its signature.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Zh => "zh",
            Self::Char => "char",
            Self::None => "none",
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The language-independent part of `tokenizer_13a.py`.
fn unescape(text: &str) -> String {
    let text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    format!(" {text} ")
}

/// `tokenizer_re.py`: punctuation apart, but for periods and commas inside numbers.
fn mteval(text: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"([\{-~\[-` -\&\(-\+:-@/])", " ${1} "),
            (r"([^0-9])([.,])", "${1} ${2} "),
            (r"([.,])([^0-9])", " ${1} ${2}"),
            (r"([0-9])(-)", "${1} ${2} "),
        ]
        .into_iter()
        .filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with)))
        .collect()
    });
    RULES.iter().fold(text.to_owned(), |text, (rule, with)| {
        rule.replace_all(&text, *with).into_owned()
    })
}

fn spaced_chinese(text: &str) -> String {
    spaced(text, is_chinese)
}

/// The ranges of `tokenizer_zh.py` as they take effect: its two ranges beyond
/// the basic plane are written `\u20000…\u2a6d6` and `\u2f800…\u2fa1d`, which
/// Python reads as U+2000 followed by `0` and so on, so they cover
/// U+2001…U+2A6D and U+2F81…U+2FA1. Published scores have that in them.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4db5 | 0x4e00..=0x9fbb | 0xf900..=0xfa2d | 0xfa30..=0xfa6a | 0xfa70..=0xfad9
        | 0x2001..=0x2a6d | 0x2f81..=0x2fa1 | 0xff00..=0xffef | 0x2e80..=0x2eff | 0x3000..=0x303f
        | 0x31c0..=0x31ef | 0x2f00..=0x2fdf | 0x2ff0..=0x2fff | 0x3100..=0x312f | 0x31a0..=0x31bf
        | 0xfe10..=0xfe1f | 0xfe30..=0xfe4f | 0x3200..=0x33ff)
}

/// Each character of a script written without spaces (Han, kana, Hangul) apart.
pub(super) fn spaced_cjk(text: &str) -> String {
    spaced(text, is_cjk)
}

pub(crate) fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x2e80..=0x2fdf | 0x3005..=0x3007 | 0x3040..=0x30ff | 0x3100..=0x312f | 0x31a0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0x20000..=0x323af)
}

fn spaced(text: &str, apart: fn(char) -> bool) -> String {
    let mut spaced = String::with_capacity(text.len() + text.len() / 2);
    for c in text.chars() {
        if apart(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced
}

/// How ROUGE cuts text into words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RougeWords {
    /// `rouge_score`'s without stemming: runs of `a-z0-9` in lower case; all else is dropped.
    #[default]
    Latin,
    /// As `latin`, and each character of Chinese, Japanese and Korean is a word.
    Cjk,
}

impl RougeWords {
    #[must_use]
    pub fn tokens(self, text: &str) -> Vec<String> {
        let kept = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || (self == Self::Cjk && is_cjk(c))
        };
        let lower: String = text
            .to_lowercase()
            .chars()
            .map(|c| if kept(c) { c } else { ' ' })
            .collect();
        match self {
            Self::Latin => split(&lower),
            Self::Cjk => split(&spaced_cjk(&lower)),
        }
    }
}
