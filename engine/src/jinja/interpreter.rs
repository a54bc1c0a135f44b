//! Runs a template: statements, and the variables they see.
//!
//! A frame is what a template's top, or the body of a macro, runs in; its scopes are those of the loops and blocks that
//! are open in it. A name is looked for from the innermost scope of the frame outwards, then among the variables around
//! the macro, then at the template's top, and last among those that were given.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Body, For, MacroDef, Stmt, StmtKind, Target};
use super::fault::{Fault, Out};
use super::ledger::{Charge, Draft, Ledger};
use super::text::write_str;
use super::value::{Builtin, ITEM, Loop, LoopState, Macro, Object, Value, Variables, depth_over};
use super::walk;

/// Levels of statements, expressions and macros within each other.
const MAX_LEVELS: usize = 2_000;

/// What a statement does to those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

struct Frame {
    scopes: Vec<Variables>,
    closure: Option<Rc<Variables>>,
}

pub(super) struct Interpreter<'a> {
    pub(super) ledger: Rc<Ledger>,
    given: &'a dyn Fn(&str) -> Option<Value>,
    frames: Vec<Frame>,
    /// The text that is being written: the outermost, and those of macros and blocks.
    outputs: Vec<Draft>,
    levels: usize,
    /// Objects that change, so that they may hold each other: emptied at the end.
    pub(super) changing: Vec<Rc<Object>>,
    /// What they take.
    pub(super) namespaces: Vec<Charge>,
}

impl Drop for Interpreter<'_> {
    fn drop(&mut self) {
        for object in std::mem::take(&mut self.changing) {
            match &*object {
                Object::Namespace(namespace) => namespace.attributes.take().clear(),
                Object::Loop(it) => it.state.borrow_mut().changed = None,
                _ => {}
            }
        }
    }
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(ledger: &Rc<Ledger>, given: &'a dyn Fn(&str) -> Option<Value>) -> Self {
        Self {
            ledger: Rc::clone(ledger),
            given,
            frames: vec![Frame {
                scopes: vec![Variables::new()],
                closure: None,
            }],
            outputs: vec![ledger.draft()],
            levels: 0,
            changing: Vec::new(),
            namespaces: Vec::new(),
        }
    }

    /// Runs the whole template.
    pub(super) fn render(mut self, body: &Body) -> Out<String> {
        self.body(body)?;
        let output = self.outputs.pop();
        Ok(output.map(|it| it.text).unwrap_or_default())
    }

    /// Goes one level deeper for as long as `run` takes.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Out<T>) -> Out<T> {
        if self.levels == MAX_LEVELS {
            return Err(Fault::too_much("it nests calls too deeply"));
        }
        self.levels += 1;
        let result = run(self);
        self.levels -= 1;
        result
    }

    pub(super) fn lookup(&self, name: &str) -> Value {
        let find = |variables: &Variables| {
            let found = variables.iter().rev().find(|(it, _)| **it == *name);
            found.map(|(_, value)| value.clone())
        };
        let frame = self.frames.last();
        let own = frame.and_then(|frame| frame.scopes.iter().rev().find_map(find));
        let around = || frame.and_then(|frame| frame.closure.as_ref().and_then(|it| find(it)));
        let top = || {
            let top = self.frames.first().and_then(|frame| frame.scopes.first());
            top.and_then(find)
        };
        own.or_else(around)
            .or_else(top)
            .or_else(|| (self.given)(name))
            .or_else(|| builtin(name).map(|it| Value::object(Object::Builtin(it))))
            .unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined")))
    }

    pub(super) fn assign(&mut self, name: &Arc<str>, value: Value) {
        let scope = self.frames.last_mut().and_then(|it| it.scopes.last_mut());
        let Some(scope) = scope else {
            return;
        };
        match scope.iter_mut().find(|(it, _)| it == name) {
            Some((_, place)) => *place = value,
            None => scope.push((Arc::clone(name), value)),
        }
    }

    fn set(&mut self, target: &Target, value: Value) -> Out<()> {
        match target {
            Target::Name(name) => {
                self.assign(name, value);
                Ok(())
            }
            Target::Attribute(name, attribute) => match self.lookup(name) {
                Value::Object(object) => match &*object {
                    Object::Namespace(namespace) => {
                        check_attribute(attribute)?;
                        let mut attributes = namespace.attributes.borrow_mut();
                        let old = attributes.insert(Arc::clone(attribute), value);
                        drop(attributes);
                        drop(old);
                        Ok(())
                    }
                    _ => Err(not_a_namespace()),
                },
                _ => Err(not_a_namespace()),
            },
            Target::Tuple(targets) => {
                let (items, _room) = walk::collect(&self.ledger, &value)?;
                if items.len() != targets.len() {
                    let (expected, got) = (targets.len(), items.len());
                    return Err(Fault::failed(match got > expected {
                        true => format!("too many values to unpack (expected {expected})"),
                        false => {
                            format!("not enough values to unpack (expected {expected}, got {got})")
                        }
                    }));
                }
                let mut pairs = targets.iter().zip(items);
                pairs.try_for_each(|(target, item)| self.set(target, item))
            }
        }
    }

    fn scoped<T>(&mut self, run: impl FnOnce(&mut Self) -> Out<T>) -> Out<T> {
        let depth = self.frames.len();
        if let Some(frame) = self.frames.last_mut() {
            frame.scopes.push(Variables::new());
        }
        let result = run(self);
        if let Some(frame) = self.frames.get_mut(depth - 1) {
            frame.scopes.pop();
        }
        result
    }

    pub(super) fn body(&mut self, body: &Body) -> Out<Flow> {
        for statement in body {
            let flow = self
                .statement(statement)
                .map_err(|fault| fault.at(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn write(&mut self, value: &Value) -> Out<()> {
        match self.outputs.last_mut() {
            Some(output) => write_str(value, output),
            None => Ok(()),
        }
    }

    fn statement(&mut self, statement: &Stmt) -> Out<Flow> {
        self.ledger.step()?;
        match &statement.kind {
            StmtKind::Data(text) => {
                if let Some(output) = self.outputs.last_mut() {
                    output.push(text)?;
                }
            }
            StmtKind::Print(node) => {
                let value = self.eval(node)?;
                self.write(&value)?;
            }
            StmtKind::If {
                branches,
                otherwise,
            } => {
                for (test, body) in branches {
                    if self.eval(test)?.truth() {
                        return self.deeper(|it| it.body(body));
                    }
                }
                return self.deeper(|it| it.body(otherwise));
            }
            StmtKind::For(node) => {
                let items = self.eval(&node.iter)?;
                self.run_loop(node, &items, 0)?;
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Set(target, node) => {
                let value = self.eval(node)?;
                self.set(target, value)?;
            }
            StmtKind::SetBlock(target, filter, body) => {
                let mut value = self.capture(|it| it.scoped(|it| it.body(body)))?;
                if let Some(filter) = filter {
                    value = self.filter_chain(filter, value)?;
                }
                self.set(target, value)?;
            }
            StmtKind::With(set, body) => return self.with(set, body),
            StmtKind::Macro(def) => {
                let value = self.make_macro(def)?;
                self.assign(&def.name, value);
            }
            StmtKind::CallBlock(def, call) => {
                let caller = self.make_macro(def)?;
                let value = self.call_with_caller(call, caller)?;
                self.write(&value)?;
            }
            StmtKind::FilterBlock(filter, body) => {
                let value = self.capture(|it| it.scoped(|it| it.body(body)))?;
                let value = self.filter_chain(filter, value)?;
                self.write(&value)?;
            }
        }
        Ok(Flow::Next)
    }

    fn with(&mut self, set: &[(Target, super::ast::Node)], body: &Body) -> Out<Flow> {
        // Values see the variables outside, not each other.
        let mut values = Vec::new();
        for (_, node) in set {
            values.push(self.eval(node)?);
        }
        self.scoped(|it| {
            for ((target, _), value) in set.iter().zip(values) {
                it.set(target, value)?;
            }
            it.deeper(|it| it.body(body))
        })
    }

    /// What `run` writes, as a text.
    fn capture(&mut self, run: impl FnOnce(&mut Self) -> Out<Flow>) -> Out<Value> {
        self.outputs.push(self.ledger.draft());
        let depth = self.outputs.len();
        let result = self.deeper(run);
        let output = self.outputs.drain(depth - 1..).next();
        result?;
        self.ledger
            .text(output.map(|it| it.text).unwrap_or_default())
    }

    /// Runs a loop over the items.
    fn run_loop(&mut self, node: &Arc<For>, items: &Value, depth: usize) -> Out<()> {
        let (items, _room) = self.wanted(node, items)?;
        let items = Rc::new(items);
        let deep = depth_over(&mut items.iter())?;
        let it = Rc::new(Object::Loop(Loop {
            state: RefCell::new(LoopState {
                items: Rc::clone(&items),
                index: 0,
                depth,
                changed: None,
            }),
            recursive: node.recursive.then(|| Arc::clone(node)),
            depth: deep,
        }));
        let name: Arc<str> = "loop".into();
        let mut finished = false;
        for (index, item) in items.iter().enumerate() {
            self.ledger.step()?;
            if let Object::Loop(it) = &*it {
                it.state.borrow_mut().index = index;
            }
            let flow = self.deeper(|me| {
                me.scoped(|me| {
                    me.assign(&name, Value::Object(Rc::clone(&it)));
                    me.set(&node.target, item.clone())?;
                    me.body(&node.body)
                })
            })?;
            // Jinja2 asks whether any round came to its end.
            finished |= flow == Flow::Next;
            if flow == Flow::Break {
                break;
            }
        }
        match finished {
            true => Ok(()),
            false => self
                .deeper(|it| it.scoped(|it| it.body(&node.otherwise)))
                .map(drop),
        }
    }

    /// The items that the loop's own condition lets through.
    fn wanted(&mut self, node: &For, items: &Value) -> Out<(Vec<Value>, Charge)> {
        let (items, room) =
            walk::collect(&self.ledger, items).map_err(|fault| fault.at(node.line))?;
        let Some(test) = &node.test else {
            return Ok((items, room));
        };
        let mut wanted = Vec::new();
        for item in items {
            let keep = self.scoped(|me| {
                me.set(&node.target, item.clone())?;
                Ok(me.eval(test)?.truth())
            })?;
            if keep {
                wanted.push(item);
            }
        }
        Ok((wanted, room))
    }

    /// `loop(items)` in a recursive loop.
    pub(super) fn recurse(&mut self, node: &Arc<For>, items: &Value, depth: usize) -> Out<Value> {
        self.capture(|it| {
            it.run_loop(node, items, depth)?;
            Ok(Flow::Next)
        })
    }

    fn make_macro(&mut self, def: &Arc<MacroDef>) -> Out<Value> {
        let at_top = self.frames.len() == 1 && self.frames[0].scopes.len() == 1;
        let mut depth = 1;
        let mut closure = None;
        if !at_top {
            let mut variables = Variables::new();
            if let Some(frame) = self.frames.last() {
                variables.extend(frame.closure.iter().flat_map(|it| it.iter().cloned()));
                // The top's own variables are seen as they are when the macro is called.
                let top = usize::from(self.frames.len() == 1);
                variables.extend(frame.scopes.iter().skip(top).flatten().cloned());
            }
            depth = depth_over(&mut variables.iter().map(|(_, value)| value))?;
            self.ledger.work(variables.len() * ITEM)?;
            closure = Some(Rc::new(variables));
        }
        Ok(Value::object(Object::Macro(Macro {
            def: Arc::clone(def),
            closure,
            depth,
        })))
    }

    /// Runs a macro's body with its parameters set.
    pub(super) fn run_macro(&mut self, it: &Macro, variables: Variables) -> Out<Value> {
        self.frames.push(Frame {
            scopes: vec![variables],
            closure: it.closure.clone(),
        });
        let depth = self.frames.len();
        let result = self.capture(|me| {
            // Defaults may name the parameters before them.
            for (name, default) in &it.def.parameters {
                if !me.has_own(name) {
                    let value = match default {
                        Some(default) => me.eval(default)?,
                        None => Value::undefined(format!("parameter '{name}' was not provided")),
                    };
                    me.assign(name, value);
                }
            }
            me.body(&it.def.body)
        });
        self.frames.truncate(depth - 1);
        result
    }

    /// Whether the innermost scope has a variable of this name.
    fn has_own(&self, name: &str) -> bool {
        let scope = self.frames.last().and_then(|frame| frame.scopes.last());
        scope.is_some_and(|scope| scope.iter().any(|(it, _)| **it == *name))
    }
}

fn builtin(name: &str) -> Option<Builtin> {
    Some(match name {
        "range" => Builtin::Range,
        "dict" => Builtin::Dict,
        "namespace" => Builtin::Namespace,
        "cycler" => Builtin::Cycler,
        "joiner" => Builtin::Joiner,
        "raise_exception" => Builtin::RaiseException,
        "strftime_now" => Builtin::StrftimeNow,
        _ => return None,
    })
}

fn not_a_namespace() -> Fault {
    Fault::failed("cannot assign attribute on non-namespace object")
}

/// Names that begin with an underscore are Python's own.
pub(super) fn check_attribute(name: &str) -> Out<()> {
    match name.starts_with('_') {
        true => Err(Fault::failed(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got \
             '{name}'. Please rename the attribute."
        ))),
        false => Ok(()),
    }
}
