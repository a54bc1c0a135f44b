//! Arguments of a call, evaluated, and bound to parameters as Python binds them.

use std::sync::Arc;

use super::fault::{Fault, Out};
use super::value::Value;

/// What a function, filter, test or method is called with.
#[derive(Debug, Clone, Default)]
pub(super) struct Called {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Called {
    pub(super) fn with(positional: Vec<Value>) -> Self {
        Self {
            positional,
            named: Vec::new(),
        }
    }

    /// One value for each parameter, by place or by name. `function` is for messages.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        parameters: [&str; N],
    ) -> Out<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Fault::failed(format!(
                "{function}() takes at most {N} arguments ({} given)",
                self.positional.len()
            )));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|it| **it == *name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => {
                    return Err(Fault::failed(format!(
                        "{function}() got multiple values for argument '{name}'"
                    )));
                }
                None => {
                    return Err(Fault::failed(format!(
                        "{function}() got an unexpected keyword argument '{name}'"
                    )));
                }
            }
        }
        Ok(bound)
    }
}

/// An argument that must be there.
pub(super) fn required(value: Option<Value>, function: &str, name: &str) -> Out<Value> {
    value.ok_or_else(|| Fault::failed(format!("{function}() missing required argument '{name}'")))
}

/// An argument that must be a text.
pub(super) fn text_of<'a>(value: &'a Value, function: &str) -> Out<&'a str> {
    match value {
        Value::Undefined(why) => Err(Fault::failed(&**why)),
        _ => value.as_str().ok_or_else(|| {
            Fault::failed(format!(
                "{function}() argument must be str, not {}",
                value.type_name()
            ))
        }),
    }
}

/// An argument that must be a whole number, if it is there and not `None`.
pub(super) fn int_of(value: Option<&Value>, function: &str) -> Out<Option<i128>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(Value::Undefined(why)) => Err(Fault::failed(&**why)),
        Some(value) => value.as_int().map(Some).ok_or_else(|| {
            Fault::failed(format!(
                "{function}(): '{}' object cannot be interpreted as an integer",
                value.type_name()
            ))
        }),
    }
}

/// A whole number that is not negative; negative ones are 0.
pub(super) fn count(number: i128) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

/// Whether an argument is true; `otherwise` where it is absent.
pub(super) fn flag(value: Option<&Value>, otherwise: bool) -> bool {
    value.map_or(otherwise, Value::truth)
}
