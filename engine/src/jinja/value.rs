//! Python's values, as far as templates meet them.
//!
//! Lists and mappings never change once they are made (transformers' sandbox forbids it), so each knows at its birth how
//! deep it is and how much it weighs. Only a namespace changes; the interpreter empties them all when it ends.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::ast::{For, MacroDef};
use super::fault::{Fault, Out};
use super::ledger::{Charge, Ledger, MAX_DEPTH};
use super::ops;

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Why there is nothing: the message of the error that using it is.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    Object(Rc<Object>),
}

/// Variables by their names.
pub(super) type Variables = Vec<(Arc<str>, Value)>;

/// A text.
#[derive(Debug)]
pub(super) struct Text {
    text: Store,
    /// All characters are one byte.
    pub(super) ascii: bool,
    /// Marked as safe HTML (`markupsafe.Markup`): what is joined to it is escaped.
    pub(super) markup: bool,
    _charge: Option<Charge>,
}

#[derive(Debug)]
enum Store {
    Own(Box<str>),
    /// A literal of the template.
    Shared(Arc<str>),
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.text {
            Store::Own(text) => text,
            Store::Shared(text) => text,
        }
    }
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        self
    }

    /// Characters.
    pub(super) fn length(&self) -> usize {
        match self.ascii {
            true => self.len(),
            false => self.chars().count(),
        }
    }
}

/// A list or a tuple.
#[derive(Debug)]
pub(super) struct Seq {
    pub(super) items: Vec<Value>,
    depth: u16,
    _charge: Option<Charge>,
}

/// A mapping, in the order of insertion.
#[derive(Debug)]
pub(super) struct Dict {
    pub(super) map: IndexMap<Key, Value>,
    depth: u16,
    _charge: Option<Charge>,
}

/// What is neither data nor a text.
#[derive(Debug)]
pub(super) enum Object {
    Namespace(Namespace),
    Loop(Loop),
    Macro(Macro),
    Builtin(Builtin),
    /// A method, bound to its value.
    Method {
        receiver: Value,
        name: Arc<str>,
    },
    /// What filters such as `map` return: it can be walked once, and is always true.
    Generator {
        items: RefCell<std::vec::IntoIter<Value>>,
        _charge: Charge,
    },
    View(Rc<Dict>, ViewKind),
    Range(Range),
    Cycler {
        items: Rc<Seq>,
        at: Cell<usize>,
    },
    Joiner {
        separator: Value,
        used: Cell<bool>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Namespace {
    pub(super) attributes: RefCell<IndexMap<Arc<str>, Value>>,
}

/// The variable `loop`.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) state: RefCell<LoopState>,
    /// What `loop(…)` runs, in a recursive one.
    pub(super) recursive: Option<Arc<For>>,
    pub(super) depth: u16,
}

#[derive(Debug)]
pub(super) struct LoopState {
    pub(super) items: Rc<Vec<Value>>,
    pub(super) index: usize,
    pub(super) depth: usize,
    pub(super) changed: Option<Vec<Value>>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) def: Arc<MacroDef>,
    /// The variables around it, unless it stands at the template's top, whose variables it sees as they are when it is
    /// called.
    pub(super) closure: Option<Rc<Variables>>,
    pub(super) depth: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewKind {
    Keys,
    Values,
    Items,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
    pub(super) length: usize,
}

impl Range {
    pub(super) fn at(self, index: usize) -> i128 {
        self.start
            .saturating_add(self.step.saturating_mul(index as i128))
    }
}

/// A value that can be a mapping's key.
#[derive(Debug, Clone)]
pub(super) struct Key(Value);

impl Key {
    pub(super) fn new(value: Value) -> Out<Self> {
        match &value {
            Value::List(_) | Value::Dict(_) => Err(Fault::failed(format!(
                "unhashable type: '{}'",
                value.type_name()
            ))),
            Value::Tuple(items) => {
                for item in &items.items {
                    Self::new(item.clone())?;
                }
                Ok(Self(value))
            }
            _ => Ok(Self(value)),
        }
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        ops::equal(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

fn hash<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        // As `str` hashes, so that keys can be looked up by one.
        Value::Str(text) => text.as_str().hash(state),
        Value::Bool(value) => i128::from(*value).hash(state),
        Value::Int(value) => value.hash(state),
        Value::Float(value) => match ops::whole(*value) {
            Some(whole) => whole.hash(state),
            None => value.to_bits().hash(state),
        },
        Value::Tuple(items) => items.items.iter().for_each(|item| hash(item, state)),
        Value::Object(object) => Rc::as_ptr(object).hash(state),
        Value::Undefined(_) | Value::None | Value::List(_) | Value::Dict(_) => 0_u8.hash(state),
    }
}

impl indexmap::Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.as_str() == Some(self)
    }
}

/// Bytes of a value within a list, and of an entry of a mapping.
pub(super) const ITEM: usize = size_of::<Value>();
const ENTRY: usize = 3 * ITEM;
/// What any value on the heap takes beside its contents.
const HEAD: usize = 64;

impl Ledger {
    /// A text that the template made.
    pub(super) fn text(self: &Rc<Self>, text: String) -> Out<Value> {
        self.text_like(text, false)
    }

    /// The same, safe HTML if so.
    pub(super) fn text_like(self: &Rc<Self>, text: String, markup: bool) -> Out<Value> {
        self.check_text(text.len())?;
        let charge = self.enter(text.len() + HEAD)?;
        self.work(text.len())?;
        Ok(Value::Str(Rc::new(Text {
            ascii: text.is_ascii(),
            text: Store::Own(text.into_boxed_str()),
            markup,
            _charge: Some(charge),
        })))
    }

    pub(super) fn str(self: &Rc<Self>, text: &str) -> Out<Value> {
        self.text(text.to_owned())
    }

    fn seq(self: &Rc<Self>, items: Vec<Value>) -> Out<Rc<Seq>> {
        let charge = self.enter(items.len() * ITEM + HEAD)?;
        Ok(Rc::new(Seq {
            depth: depth_over(&mut items.iter())?,
            items,
            _charge: Some(charge),
        }))
    }

    pub(super) fn list(self: &Rc<Self>, items: Vec<Value>) -> Out<Value> {
        self.seq(items).map(Value::List)
    }

    pub(super) fn tuple(self: &Rc<Self>, items: Vec<Value>) -> Out<Value> {
        self.seq(items).map(Value::Tuple)
    }

    pub(super) fn dict(self: &Rc<Self>, map: IndexMap<Key, Value>) -> Out<Value> {
        let charge = self.enter(map.len() * ENTRY + HEAD)?;
        let depth = depth_over(&mut map.iter().flat_map(|(key, value)| [&key.0, value]))?;
        Ok(Value::Dict(Rc::new(Dict {
            depth,
            map,
            _charge: Some(charge),
        })))
    }

    pub(super) fn generator(self: &Rc<Self>, items: Vec<Value>) -> Out<Value> {
        let charge = self.enter(items.len() * ITEM + HEAD)?;
        depth_over(&mut items.iter())?;
        let items = RefCell::new(items.into_iter());
        Ok(Value::object(Object::Generator {
            items,
            _charge: charge,
        }))
    }
}

/// One level more than the deepest of the values.
pub(super) fn depth_over(values: &mut dyn Iterator<Item = &Value>) -> Out<u16> {
    let depth = values.map(Value::depth).max().unwrap_or(0) + 1;
    match depth > MAX_DEPTH {
        true => Err(Fault::too_much(format!(
            "it nests values more than {MAX_DEPTH} levels deep"
        ))),
        false => Ok(depth),
    }
}

impl Value {
    pub(super) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    pub(super) fn undefined(why: impl Into<Rc<str>>) -> Self {
        Self::Undefined(why.into())
    }

    /// A literal of the template.
    pub(super) fn literal(text: &Arc<str>) -> Self {
        Self::Str(Rc::new(Text {
            ascii: text.is_ascii(),
            text: Store::Shared(Arc::clone(text)),
            markup: false,
            _charge: None,
        }))
    }

    /// A variable that the caller gives; not the template's to pay for.
    pub(super) fn given(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Self::Int(number.into()),
                (None, Some(number)) => Self::Int(number.into()),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Str(Rc::new(Text {
                ascii: text.is_ascii(),
                text: Store::Own(text.as_str().into()),
                markup: false,
                _charge: None,
            })),
            serde_json::Value::Array(items) => {
                let items: Vec<Self> = items.iter().map(Self::given).collect();
                Self::List(Rc::new(Seq {
                    depth: items.iter().map(Self::depth).max().unwrap_or(0) + 1,
                    items,
                    _charge: None,
                }))
            }
            serde_json::Value::Object(fields) => {
                let entry = |(name, value): (&String, &serde_json::Value)| {
                    let name = serde_json::Value::String(name.clone());
                    (Key(Self::given(&name)), Self::given(value))
                };
                let map: IndexMap<Key, Self> = fields.iter().map(entry).collect();
                Self::Dict(Rc::new(Dict {
                    depth: map.values().map(Self::depth).max().unwrap_or(0) + 1,
                    map,
                    _charge: None,
                }))
            }
        }
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(seq) | Self::Tuple(seq) => seq.depth,
            Self::Dict(dict) => dict.depth,
            Self::Object(object) => match &**object {
                Object::View(dict, _) => dict.depth,
                Object::Generator { items, .. } => {
                    let items = items.borrow();
                    let deepest = items.as_slice().iter().map(Self::depth).max();
                    deepest.unwrap_or(0).saturating_add(1)
                }
                Object::Method { receiver, .. } => receiver.depth().saturating_add(1),
                Object::Cycler { items, .. } => items.depth,
                Object::Loop(it) => it.depth,
                Object::Macro(it) => it.depth,
                Object::Joiner { separator, .. } => separator.depth().saturating_add(1),
                // A namespace changes; the interpreter empties all of them, one by one.
                Object::Namespace(_) | Object::Builtin(_) | Object::Range(_) => 0,
            },
            _ => 0,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number; Python's booleans are some.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => self.as_int().map(|value| value as f64),
        }
    }

    pub(super) fn is_markup(&self) -> bool {
        matches!(self, Self::Str(text) if text.markup)
    }

    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(seq) | Self::Tuple(seq) => !seq.items.is_empty(),
            Self::Dict(dict) => !dict.map.is_empty(),
            Self::Object(object) => match &**object {
                Object::View(dict, _) => !dict.map.is_empty(),
                Object::Range(range) => range.length > 0,
                _ => true,
            },
        }
    }

    /// Python's name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(text) if text.markup => "Markup",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Object(object) => match &**object {
                Object::Namespace(_) => "Namespace",
                Object::Loop(_) => "LoopContext",
                Object::Macro(_) => "Macro",
                Object::Builtin(_) | Object::Method { .. } => "function",
                Object::Generator { .. } => "generator",
                Object::View(_, ViewKind::Keys) => "dict_keys",
                Object::View(_, ViewKind::Values) => "dict_values",
                Object::View(_, ViewKind::Items) => "dict_items",
                Object::Range(_) => "range",
                Object::Cycler { .. } => "Cycler",
                Object::Joiner { .. } => "Joiner",
            },
        }
    }
}
