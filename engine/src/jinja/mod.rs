//! Jinja, as `transformers` renders chat templates with it.
//!
//! A model's template is written for Jinja2 in Python: which methods a text has, how a mapping prints, what is true, what
//! fails, all of that is Python's, and it decides the prompt to the last byte. So templates are evaluated here with
//! Python's own values rather than by an engine with values of its own. A template is also code that somebody else wrote:
//! it can neither panic nor take more steps, levels or bytes than its [`Limits`], whatever it does.
//!
//! What is not there: inheritance, imports and includes (a chat template is one file), HTML auto-escaping (off in
//! `transformers`), and the filters `pprint`, `random`, `urlize`, `wordwrap`, `xmlattr` and `filesizeformat`.
//!
//! Reading order: [`lexer`], [`parser`] with [`expressions`], [`value`] with [`ledger`], [`interpreter`], [`evaluator`].

mod arguments;
mod ast;
mod checks;
mod evaluator;
mod expressions;
mod fault;
mod filters;
mod format;
mod interpreter;
mod layout;
mod ledger;
mod lexer;
mod lookup;
mod methods;
mod ops;
mod parser;
mod strftime;
mod text;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Map, Value};

pub use fault::{Fault, FaultKind};
pub use ledger::Limits;

use interpreter::Interpreter;
use ledger::Ledger;

/// Bytes of stack that reading or rendering may need; only what is used is ever taken.
const STACK: usize = 64 << 20;

/// A template, read.
#[derive(Debug, Clone)]
pub struct Template {
    body: std::sync::Arc<ast::Body>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is not Jinja, or nested too deeply; the message says where.
    pub fn new(source: &str) -> Result<Self, Fault> {
        let body = stacker::grow(STACK, || parser::parse(source))?;
        Ok(Self { body: body.into() })
    }

    /// Renders it with these variables.
    ///
    /// # Errors
    /// What the template raised, what failed in it, or which limit it exceeds.
    pub fn render(&self, variables: &Map<String, Value>, limits: Limits) -> Result<String, Fault> {
        // With all that the rendering leaves behind.
        stacker::grow(STACK, || {
            let given: HashMap<&str, value::Value> = variables
                .iter()
                .map(|(name, value)| (name.as_str(), value::Value::given(value)))
                .collect();
            let given = |name: &str| given.get(name).cloned();
            let ledger = Ledger::new(limits);
            Interpreter::new(&ledger, &given).render(&self.body)
        })
    }
}
