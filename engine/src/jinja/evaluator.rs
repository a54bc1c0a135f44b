//! Evaluates expressions.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::arguments::{Called, int_of, required};
use super::ast::{Arguments, Expr, Node};
use super::checks;
use super::fault::{Fault, FaultKind, Out};
use super::filters;
use super::interpreter::{Interpreter, check_attribute};
use super::lookup;
use super::methods;
use super::ops;
use super::strftime;
use super::text::to_str;
use super::value::{Builtin, Key, Macro, Namespace, Object, Range, Value, Variables};
use super::walk;

/// Items of a range (the sandbox's own bound).
const MAX_RANGE: usize = 100_000;
/// Bytes that a namespace takes at least.
const NAMESPACE: usize = 256;

impl Interpreter<'_> {
    pub(super) fn eval(&mut self, node: &Node) -> Out<Value> {
        self.ledger.step()?;
        self.deeper(|it| it.expression(&node.kind))
    }

    fn all(&mut self, nodes: &[Node]) -> Out<Vec<Value>> {
        nodes.iter().map(|node| self.eval(node)).collect()
    }

    fn expression(&mut self, expression: &Expr) -> Out<Value> {
        Ok(match expression {
            Expr::None => Value::None,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Int(value) => Value::Int(*value),
            Expr::Float(value) => Value::Float(*value),
            Expr::Str(text) => Value::literal(text),
            Expr::Name(name) => self.lookup(name),
            Expr::List(nodes) => {
                let items = self.all(nodes)?;
                self.ledger.list(items)?
            }
            Expr::Tuple(nodes) => {
                let items = self.all(nodes)?;
                self.ledger.tuple(items)?
            }
            Expr::Dict(pairs) => {
                let mut map = IndexMap::new();
                for (key, value) in pairs {
                    let key = Key::new(self.eval(key)?)?;
                    map.insert(key, self.eval(value)?);
                }
                self.ledger.dict(map)?
            }
            Expr::Attribute(node, name) => {
                let value = self.eval(node)?;
                attribute(&value, name)?
            }
            Expr::Item(node, index) => self.item(node, index)?,
            Expr::Slice(_) => return Err(Fault::failed("a slice stands alone")),
            Expr::Call(node, arguments) => self.call(node, arguments)?,
            Expr::Filter(node, name, arguments) => {
                let value = match node {
                    Some(node) => self.eval(node)?,
                    None => return Err(Fault::failed("a filter without a value")),
                };
                let called = self.arguments(arguments)?;
                filters::apply(&self.ledger, name, value, called)?
            }
            Expr::Test(node, name, arguments) => {
                let value = self.eval(node)?;
                let called = self.arguments(arguments)?;
                Value::Bool(checks::holds(&self.ledger, name, &value, called)?)
            }
            Expr::Negative(node) => ops::sign(&self.eval(node)?, true)?,
            Expr::Positive(node) => ops::sign(&self.eval(node)?, false)?,
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                ops::binary(&self.ledger, *operator, &left, &right)?
            }
            Expr::Concat(nodes) => {
                let pieces = self.all(nodes)?;
                ops::concat(&self.ledger, &pieces)?
            }
            Expr::Compare(first, others) => {
                let mut left = self.eval(first)?;
                for (comparison, right) in others {
                    let right = self.eval(right)?;
                    if !ops::compare(&self.ledger, *comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                match left.truth() {
                    true => self.eval(right)?,
                    false => left,
                }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                match left.truth() {
                    true => left,
                    false => self.eval(right)?,
                }
            }
            Expr::Not(node) => Value::Bool(!self.eval(node)?.truth()),
            Expr::Condition { test, yes, no } => match (self.eval(test)?.truth(), no) {
                (true, _) => self.eval(yes)?,
                (false, Some(no)) => self.eval(no)?,
                (false, None) => Value::undefined(
                    "the inline if-expression evaluated to false and no else section was defined.",
                ),
            },
        })
    }

    fn item(&mut self, node: &Node, index: &Node) -> Out<Value> {
        let value = self.eval(node)?;
        if let Expr::Slice(parts) = &*index.kind {
            let mut bounds = [const { Value::None }; 3];
            for (bound, part) in bounds.iter_mut().zip(parts) {
                if let Some(part) = part {
                    *bound = self.eval(part)?;
                }
            }
            return lookup::slice(&self.ledger, &value, &bounds);
        }
        let index = self.eval(index)?;
        lookup::item(&self.ledger, &value, &index)
    }

    fn arguments(&mut self, arguments: &Arguments) -> Out<Called> {
        let mut called = Called::with(self.all(&arguments.positional)?);
        for (name, node) in &arguments.named {
            called.named.push((Arc::clone(name), self.eval(node)?));
        }
        if let Some(list) = &arguments.list {
            let list = self.eval(list)?;
            let (items, _room) = walk::collect(&self.ledger, &list)?;
            called.positional.extend(items);
        }
        if let Some(mapping) = &arguments.mapping {
            let Value::Dict(dict) = self.eval(mapping)? else {
                return Err(Fault::failed("argument after ** must be a mapping"));
            };
            for (key, value) in &dict.map {
                let Some(name) = key.as_str() else {
                    return Err(Fault::failed("keywords must be strings"));
                };
                called.named.push((name.into(), value.clone()));
            }
        }
        Ok(called)
    }

    /// The filters of `{% filter %}` and `{% set %}`, whose innermost has no value yet.
    pub(super) fn filter_chain(&mut self, node: &Node, value: Value) -> Out<Value> {
        let Expr::Filter(inner, name, arguments) = &*node.kind else {
            return Ok(value);
        };
        let value = match inner {
            Some(inner) => self.deeper(|it| it.filter_chain(inner, value))?,
            None => value,
        };
        let called = self.arguments(arguments)?;
        filters::apply(&self.ledger, name, value, called)
    }

    pub(super) fn call_with_caller(&mut self, node: &Node, caller: Value) -> Out<Value> {
        let Expr::Call(callee, arguments) = &*node.kind else {
            return Err(Fault::failed("expected call"));
        };
        let callee = self.eval(callee)?;
        let mut called = self.arguments(arguments)?;
        called.named.push(("caller".into(), caller));
        self.invoke(&callee, called)
    }

    fn call(&mut self, node: &Node, arguments: &Arguments) -> Out<Value> {
        // A method is called without making a value of it.
        if let Expr::Attribute(receiver, name) = &*node.kind {
            let receiver = self.eval(receiver)?;
            if let Value::Undefined(why) = &receiver {
                return Err(Fault::failed(&**why));
            }
            if methods::has(&receiver, name) == Ok(true) {
                let called = self.arguments(arguments)?;
                return self.invoke_method(&receiver, name, called);
            }
            let callee = lookup::attribute(&receiver, name);
            let called = self.arguments(arguments)?;
            return self.invoke(&callee, called);
        }
        let callee = self.eval(node)?;
        let called = self.arguments(arguments)?;
        self.invoke(&callee, called)
    }

    fn invoke(&mut self, callee: &Value, called: Called) -> Out<Value> {
        let object = match callee {
            Value::Object(object) => object,
            Value::Undefined(why) => return Err(Fault::failed(&**why)),
            _ => return Err(not_callable(callee)),
        };
        match &**object {
            Object::Builtin(builtin) => self.invoke_builtin(*builtin, called),
            Object::Method { receiver, name } => self.invoke_method(receiver, name, called),
            Object::Macro(it) => self.invoke_macro(it, called),
            Object::Joiner { separator, used } => match used.replace(true) {
                true => Ok(separator.clone()),
                false => Ok(Value::literal(&"".into())),
            },
            Object::Loop(it) => {
                let Some(node) = &it.recursive else {
                    return Err(Fault::failed(
                        "The loop must have the 'recursive' marker to be called recursively.",
                    ));
                };
                let [items] = called.bind("loop", ["iterable"])?;
                let items = required(items, "loop", "iterable")?;
                let depth = it.state.borrow().depth + 1;
                self.recurse(node, &items, depth)
            }
            Object::Namespace(_)
            | Object::Generator { .. }
            | Object::View(..)
            | Object::Range(_)
            | Object::Cycler { .. } => Err(not_callable(callee)),
        }
    }

    fn invoke_method(&mut self, receiver: &Value, name: &str, called: Called) -> Out<Value> {
        let Value::Object(object) = receiver else {
            return methods::call(&self.ledger, receiver, name, called);
        };
        let Object::Loop(it) = &**object else {
            return methods::call(&self.ledger, receiver, name, called);
        };
        if name == "cycle" {
            let index = it.state.borrow().index;
            let count = called.positional.len();
            return match count {
                0 => Err(Fault::failed("no items for cycling given")),
                _ => Ok(called.positional[index % count].clone()),
            };
        }
        let changed = {
            let state = it.state.borrow();
            let same = |last: &Vec<Value>| {
                let mut pairs = last.iter().zip(&called.positional);
                last.len() == called.positional.len() && pairs.all(|(a, b)| ops::equal(a, b))
            };
            !state.changed.as_ref().is_some_and(same)
        };
        if changed {
            let first = it.state.borrow().changed.is_none();
            if first {
                self.changing.push(Rc::clone(object));
            }
            it.state.borrow_mut().changed = Some(called.positional);
        }
        Ok(Value::Bool(changed))
    }

    fn invoke_macro(&mut self, it: &Macro, mut called: Called) -> Out<Value> {
        let name = &it.def.name;
        let parameters = &it.def.parameters;
        let given = called.positional.len();
        let mut variables = Variables::new();
        let mut positional = called.positional.into_iter();
        for (parameter, _) in parameters {
            let named = || {
                let at = called.named.iter().position(|(it, _)| it == parameter)?;
                Some(called.named.remove(at).1)
            };
            if let Some(value) = positional.next().or_else(named) {
                variables.push((Arc::clone(parameter), value));
            }
        }
        // Whatever else is given can be had by these names.
        let more: Vec<Value> = positional.collect();
        if !parameters.iter().any(|(it, _)| **it == *"caller") {
            let caller = called.named.iter().position(|(it, _)| **it == *"caller");
            let caller = caller.map(|at| called.named.remove(at).1);
            let caller = caller.unwrap_or_else(|| Value::undefined("No caller defined"));
            variables.push(("caller".into(), caller));
        }
        if let Some((other, _)) = called.named.first().filter(|_| !it.def.kwargs) {
            return Err(Fault::failed(format!(
                "macro '{name}' takes no keyword argument '{other}'"
            )));
        }
        if !more.is_empty() && !it.def.varargs {
            return Err(Fault::failed(format!(
                "macro '{name}' takes not more than {} argument(s), but {given} were given",
                parameters.len()
            )));
        }
        let mut map = IndexMap::new();
        for (name, value) in called.named {
            map.insert(Key::new(Value::literal(&name))?, value);
        }
        if it.def.varargs {
            variables.push(("varargs".into(), self.ledger.tuple(more)?));
        }
        if it.def.kwargs {
            variables.push(("kwargs".into(), self.ledger.dict(map)?));
        }
        self.run_macro(it, variables)
    }

    fn invoke_builtin(&mut self, builtin: Builtin, called: Called) -> Out<Value> {
        match builtin {
            Builtin::Range => range(called),
            Builtin::Dict => {
                let map = self.mapping("dict", called)?;
                self.ledger.dict(map)
            }
            Builtin::Namespace => {
                let mut attributes = IndexMap::new();
                for (key, value) in self.mapping("namespace", called)? {
                    let name = key.as_str().unwrap_or_default();
                    check_attribute(name)?;
                    attributes.insert(name.into(), value);
                }
                // They live to the end of the rendering.
                self.namespaces.push(
                    self.ledger
                        .enter(NAMESPACE + attributes.len() * NAMESPACE)?,
                );
                let made = Rc::new(Object::Namespace(Namespace {
                    attributes: attributes.into(),
                }));
                self.changing.push(Rc::clone(&made));
                Ok(Value::Object(made))
            }
            Builtin::Cycler => {
                if called.positional.is_empty() {
                    return Err(Fault::failed("at least one item has to be provided"));
                }
                let Value::Tuple(items) = self.ledger.tuple(called.positional)? else {
                    return Ok(Value::None);
                };
                let at = Cell::new(0);
                Ok(Value::object(Object::Cycler { items, at }))
            }
            Builtin::Joiner => {
                let [separator] = called.bind("joiner", ["sep"])?;
                Ok(Value::object(Object::Joiner {
                    separator: separator.unwrap_or_else(|| Value::literal(&", ".into())),
                    used: Cell::new(false),
                }))
            }
            Builtin::RaiseException => {
                let [message] = called.bind("raise_exception", ["message"])?;
                let message = required(message, "raise_exception", "message")?;
                let message = ops::str_of(&self.ledger, &message)?;
                Err(Fault::new(FaultKind::Raised, message))
            }
            Builtin::StrftimeNow => {
                let [format] = called.bind("strftime_now", ["format"])?;
                let format = to_str(&self.ledger, &required(format, "strftime_now", "format")?)?;
                let format = format.as_str().unwrap_or_default();
                // A conversion of two bytes becomes some thirty at most.
                self.ledger.check_text(format.len().saturating_mul(16))?;
                self.ledger.text(strftime::now(format))
            }
        }
    }

    /// `dict(mapping, name=value)`.
    fn mapping(&mut self, function: &str, called: Called) -> Out<IndexMap<Key, Value>> {
        let mut map = IndexMap::new();
        let mut positional = called.positional.into_iter();
        match positional.next() {
            None => {}
            Some(Value::Dict(dict)) => {
                let _room = self.ledger.enter(dict.map.len() * NAMESPACE)?;
                self.ledger.work(dict.map.len() * NAMESPACE)?;
                map.clone_from(&dict.map);
            }
            Some(pairs) => {
                let (pairs, _room) = walk::collect(&self.ledger, &pairs)?;
                for pair in pairs {
                    let (pair, _room) = walk::collect(&self.ledger, &pair)?;
                    let [key, value] = &pair[..] else {
                        return Err(Fault::failed(format!("{function}() takes pairs")));
                    };
                    map.insert(Key::new(key.clone())?, value.clone());
                }
            }
        }
        if positional.next().is_some() {
            return Err(Fault::failed(format!(
                "{function} expected at most 1 argument"
            )));
        }
        for (name, value) in called.named {
            map.insert(Key::new(Value::literal(&name))?, value);
        }
        Ok(map)
    }
}

fn attribute(value: &Value, name: &Arc<str>) -> Out<Value> {
    match value {
        Value::Undefined(why) => Err(Fault::failed(&**why)),
        _ => Ok(lookup::attribute(value, name)),
    }
}

fn not_callable(value: &Value) -> Fault {
    Fault::failed(format!("'{}' object is not callable", value.type_name()))
}

fn range(called: Called) -> Out<Value> {
    let [first, second, step] = called.bind("range", ["start", "stop", "step"])?;
    let first = int_of(Some(&required(first, "range", "stop")?), "range")?.unwrap_or(0);
    let (start, stop) = match int_of(second.as_ref(), "range")? {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = int_of(step.as_ref(), "range")?.unwrap_or(1);
    if step == 0 {
        return Err(Fault::failed("range() arg 3 must not be zero"));
    }
    let distance = match step > 0 {
        true => stop.saturating_sub(start),
        false => start.saturating_sub(stop),
    };
    let length = match distance > 0 {
        true => (distance - 1) / step.saturating_abs() + 1,
        false => 0,
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match length > MAX_RANGE {
        true => Err(Fault::too_much(format!(
            "a range of more than {MAX_RANGE} items"
        ))),
        false => Ok(Value::object(Object::Range(Range {
            start,
            stop,
            step,
            length,
        }))),
    }
}
