//! Brings what a grammar leaves open to an end.
//!
//! A schema may leave a string, a number, an array or an object without a bound, and a model with poor weights never
//! ends it by itself. [`Growth`] follows the output byte by byte, knows how far it has grown, and says once a bound is
//! reached what would end it. The mask is then held to such tokens, if the grammar allows any; if it does not, because
//! something is still required, the mask stays as it is. So nothing is ever forbidden that the grammar needs, however
//! the schema was spelled, and it costs a few bytes of state instead of thousands of lexer states.

use toktrie::SimpleVob;

/// How far a part without a bound of its own may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Characters of a number, and digits of a run of digits in a pattern.
    pub number_chars: usize,
    /// Bytes of a string, and of a text under a pattern of its own.
    pub string_bytes: usize,
    /// Characters of a string that has a `pattern` of letters and digits; 16 times as many where it is one of any text.
    pub pattern_chars: usize,
    /// Elements of an array, properties of an object.
    pub items: usize,
    /// Objects and arrays within each other, and rounds of a schema that refers to itself.
    pub depth: usize,
    /// Bytes of the whole.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            number_chars: 24,
            string_bytes: 64 << 10,
            pattern_chars: 128,
            items: 4096,
            depth: 32,
            bytes: 256 << 10,
        }
    }
}

/// What the output is, for those who follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON value, or several with something between them.
    Json,
    /// Free text, in which JSON follows a mark, or stands alone if `bare`.
    Calls {
        /// What comes before the JSON.
        mark: &'static str,
        /// An output that begins with `{` is JSON without a mark.
        bare: bool,
    },
    /// Text of any kind, of so many bytes.
    Text {
        /// Bytes after which it ends as soon as it may.
        bytes: usize,
    },
}

/// What would bring the output nearer to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nothing: it may grow.
    Free,
    /// The end of the string.
    Quote,
    /// The string may go on, but nothing is to follow in the object or array that it is in.
    LastString,
    /// Anything but more of the number.
    NoNumber,
    /// The number may go on, but nothing is to follow in the object or array that it is in.
    LastNumber,
    /// No further object or array within these.
    Flat,
    /// What is within an object or array that is full may grow; that itself may not.
    NoReturn,
    /// The end of objects and arrays, or else a value that has no others in it.
    Close,
    /// The end of all.
    End,
}

/// Where in JSON the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In free text, so many bytes of the mark behind it.
    Text {
        matched: usize,
    },
    /// Between lexemes, or in a word.
    Between,
    String {
        bytes: usize,
        escaped: bool,
    },
    Number {
        chars: usize,
    },
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Growth {
    form: Form,
    bounds: Bounds,
    at: At,
    /// Elements of the open objects and arrays, the outermost first.
    open: Vec<usize>,
    /// Bytes of the JSON, or of the text.
    bytes: usize,
    started: bool,
}

impl Growth {
    pub(super) fn new(form: Form, bounds: Bounds) -> Self {
        Self {
            form,
            bounds,
            at: match form {
                Form::Json => At::Between,
                Form::Calls { .. } | Form::Text { .. } => At::Text { matched: 0 },
            },
            open: Vec::new(),
            bytes: 0,
            started: false,
        }
    }

    /// Takes what was written.
    pub(super) fn push(&mut self, text: &[u8]) {
        for &byte in text {
            match self.form {
                Form::Text { .. } => self.bytes += 1,
                Form::Json | Form::Calls { .. } => self.step(byte),
            }
        }
    }

    fn step(&mut self, byte: u8) {
        let first = !std::mem::replace(&mut self.started, true);
        match self.at {
            At::Text { matched } => return self.text(byte, matched, first),
            At::Between => self.structure(byte),
            At::String {
                escaped: true,
                bytes,
            } => {
                self.at = At::String {
                    bytes: bytes + 1,
                    escaped: false,
                };
            }
            At::String { bytes, .. } => match byte {
                b'"' => self.at = At::Between,
                _ => {
                    self.at = At::String {
                        bytes: bytes + 1,
                        escaped: byte == b'\\',
                    }
                }
            },
            At::Number { chars } if is_number(byte) => self.at = At::Number { chars: chars + 1 },
            At::Number { .. } => {
                self.at = At::Between;
                self.structure(byte);
            }
        }
        self.bytes += 1;
    }

    /// Waits for the mark.
    fn text(&mut self, byte: u8, matched: usize, first: bool) {
        let Form::Calls { mark, bare } = self.form else {
            return;
        };
        let mark = mark.as_bytes();
        let matched = match mark.get(matched) {
            Some(next) if *next == byte => matched + 1,
            _ => usize::from(mark.first() == Some(&byte)),
        };
        if bare && first && byte == b'{' {
            self.at = At::Between;
            self.structure(byte);
        } else if matched == mark.len() {
            self.at = At::Between;
        } else {
            self.at = At::Text { matched };
        }
        self.bytes = 0;
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.at = At::String {
                    bytes: 0,
                    escaped: false,
                }
            }
            b'-' | b'0'..=b'9' => self.at = At::Number { chars: 1 },
            b'{' | b'[' => self.open.push(1),
            b',' => {
                if let Some(items) = self.open.last_mut() {
                    *items += 1;
                }
            }
            b'}' | b']' => {
                let closed = self.open.pop();
                // Behind a call there is text again, or the mark of the next one.
                if closed.is_some()
                    && self.open.is_empty()
                    && matches!(self.form, Form::Calls { bare: false, .. })
                {
                    self.at = At::Text { matched: 0 };
                }
            }
            _ => {}
        }
    }

    fn wish(&self) -> Wish {
        let bounds = &self.bounds;
        let grown = self.bytes >= bounds.bytes;
        let (last, outer) = match self.open.split_last() {
            Some((last, outer)) => (*last, outer),
            None => (0, [].as_slice()),
        };
        let full = last >= bounds.items;
        let outer_full = outer.iter().any(|items| *items >= bounds.items);
        match self.at {
            At::Text { .. } => match self.form {
                Form::Text { bytes } if self.bytes >= bytes => Wish::End,
                Form::Text { .. } | Form::Json | Form::Calls { .. } => Wish::Free,
            },
            At::String { bytes, .. } if grown || bytes >= bounds.string_bytes => Wish::Quote,
            At::String { .. } if full => Wish::LastString,
            At::Number { chars } if grown || chars >= bounds.number_chars => Wish::NoNumber,
            At::Number { .. } if full => Wish::LastNumber,
            At::Between if grown || full => Wish::Close,
            At::Between if self.open.len() >= bounds.depth => Wish::Flat,
            At::String { .. } | At::Number { .. } | At::Between if outer_full => Wish::NoReturn,
            At::String { .. } | At::Number { .. } | At::Between => Wish::Free,
        }
    }
}

/// What may stand in a JSON number.
fn is_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
}

/// The tokens of a vocabulary by what they end.
#[derive(Debug)]
pub(super) struct TokenClasses {
    /// The end of a string, and of what it is in.
    quote: SimpleVob,
    /// Ends of objects and arrays only.
    close: SimpleVob,
    /// Nothing in them that opens an object or array, or asks for more.
    plain: SimpleVob,
    /// All but those that go on with a number.
    no_number: SimpleVob,
    /// All but those that open an object or array.
    flat: SimpleVob,
    /// All but those in which something follows the end of a string.
    last_string: SimpleVob,
    /// All but those in which something follows the end of an object or array.
    no_return: SimpleVob,
    end: SimpleVob,
}

impl TokenClasses {
    /// Sorts the vocabulary. `end`: the tokens that end the output.
    pub(super) fn of(words: &[Vec<u8>], end: &[u32]) -> Self {
        let select = |belongs: &dyn Fn(&[u8]) -> bool| {
            let mut class = SimpleVob::alloc(words.len());
            for (id, word) in words.iter().enumerate() {
                if belongs(word) {
                    class.allow_token(u32::try_from(id).unwrap_or(u32::MAX));
                }
            }
            class
        };
        let closing = |word: &[u8]| word.iter().all(|byte| matches!(byte, b'}' | b']'));
        let opens = |byte: &u8| matches!(byte, b'{' | b'[');
        let follows = |word: &[u8], after: &[u8]| {
            let end = word.iter().position(|byte| after.contains(byte));
            end.is_some_and(|end| word[end..].contains(&b','))
        };
        let mut ends = SimpleVob::alloc(words.len());
        end.iter().for_each(|id| ends.allow_token(*id));
        Self {
            quote: select(&|word| word.first() == Some(&b'"') && closing(&word[1..])),
            close: select(&|word| !word.is_empty() && closing(word)),
            plain: select(&|word| {
                !word
                    .iter()
                    .any(|byte| opens(byte) || matches!(byte, b',' | b':'))
            }),
            no_number: select(&|word| !word.first().is_some_and(|byte| is_number(*byte))),
            flat: select(&|word| !word.iter().any(opens)),
            last_string: select(&|word| !follows(word, b"\"")),
            no_return: select(&|word| !follows(word, b"]}")),
            end: ends,
        }
    }

    /// Holds a mask to what brings the output to its end, where it has grown enough.
    pub(super) fn restrict(&self, mask: SimpleVob, growth: &Growth) -> SimpleVob {
        let wanted: &[&SimpleVob] = match growth.wish() {
            Wish::Free => return mask,
            Wish::Quote => &[&self.quote, &self.last_string],
            Wish::LastString => &[&self.last_string],
            Wish::NoNumber => &[&self.end, &self.close, &self.no_number],
            Wish::LastNumber => &[&self.plain],
            Wish::Flat => &[&self.flat],
            Wish::NoReturn => &[&self.no_return],
            Wish::Close => &[&self.end, &self.close, &self.plain],
            Wish::End => &[&self.end],
        };
        for class in wanted {
            let mut held = mask.clone();
            held.and(class);
            if !held.is_zero() {
                return held;
            }
        }
        mask
    }
}

#[cfg(test)]
mod tests;
