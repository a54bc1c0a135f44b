//! Tokens to a tree: statements.

use std::sync::Arc;

use super::ast::{Body, Expr, For, MacroDef, Node, Stmt, StmtKind, Target};
use super::expressions::Tuples;
use super::fault::{Fault, Out};
use super::lexer::{Token, tokens};

/// Levels of nesting of a template: reading it recurses.
const MAX_NESTING: u16 = 100;
/// The same of an expression with its chains, as in `a + b + c`.
const MAX_HEIGHT: u16 = 500;

/// Reads a template.
pub(super) fn parse(source: &str) -> Out<Body> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        nesting: 0,
        tags: Vec::new(),
    };
    let (body, _) = parser.body(&[])?;
    Ok(body)
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: u16,
    /// The open tags, the innermost last.
    tags: Vec<Arc<str>>,
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        self.look(0)
    }

    pub(super) fn look(&self, ahead: usize) -> &Token {
        let at = (self.at + ahead).min(self.tokens.len() - 1);
        &self.tokens[at].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Out<T> {
        Err(Fault::syntax(message, self.line()))
    }

    pub(super) fn is_op(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Op(it) if *it == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(it) if **it == *name)
    }

    pub(super) fn skip_op(&mut self, operator: &str) -> bool {
        let found = self.is_op(operator);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, operator: &str) -> Out<()> {
        match self.skip_op(operator) {
            true => Ok(()),
            false => self.fail(format!("expected '{operator}', got {}", self.described())),
        }
    }

    pub(super) fn expect_name(&mut self) -> Out<Arc<str>> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.fail(format!("expected a name, got {}", self.described())),
        }
    }

    fn expect(&mut self, token: &Token, word: &str) -> Out<()> {
        if self.peek() == token {
            self.at += 1;
            return Ok(());
        }
        self.fail(format!("expected {word}, got {}", self.described()))
    }

    /// The next token, for a message.
    pub(super) fn described(&self) -> String {
        match self.peek() {
            Token::Data(_) => "text".to_owned(),
            Token::PrintBegin => "'{{'".to_owned(),
            Token::PrintEnd => "'}}'".to_owned(),
            Token::TagBegin => "'{%'".to_owned(),
            Token::TagEnd => "'%}'".to_owned(),
            Token::Name(name) => format!("'{name}'"),
            Token::Str(_) => "a string".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Op(operator) => format!("'{operator}'"),
            Token::End => "the end of the template".to_owned(),
        }
    }

    /// An expression, if it is not too high.
    pub(super) fn node(&self, kind: Expr) -> Out<Node> {
        let height = kind.height();
        match height > MAX_HEIGHT {
            true => self.fail(format!("an expression has more than {MAX_HEIGHT} levels")),
            false => Ok(Node {
                kind: Box::new(kind),
                height,
            }),
        }
    }

    /// Reads what is nested by one level more.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Out<T>) -> Out<T> {
        if self.nesting == MAX_NESTING {
            return self.fail(format!("nested more than {MAX_NESTING} levels deep"));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    /// Statements up to one of the tags, whose name is consumed and returned; without tags, to the end.
    fn body(&mut self, ends: &[&str]) -> Out<(Body, Arc<str>)> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            match self.next() {
                Token::Data(text) => body.push(Stmt {
                    line,
                    kind: StmtKind::Data(text),
                }),
                Token::PrintBegin => {
                    let kind = StmtKind::Print(self.tuple(Tuples::default())?);
                    self.expect(&Token::PrintEnd, "'}}'")?;
                    body.push(Stmt { line, kind });
                }
                Token::TagBegin => {
                    let line = self.line();
                    let name = self.expect_name()?;
                    if ends.contains(&&*name) {
                        return Ok((body, name));
                    }
                    self.tags.push(Arc::clone(&name));
                    let kind = self.nested(|it| it.statement(&name, line))?;
                    self.tags.pop();
                    self.expect(&Token::TagEnd, "'%}'")?;
                    body.extend(kind.into_iter().map(|kind| Stmt { line, kind }));
                }
                Token::End if ends.is_empty() => return Ok((body, "".into())),
                _ => {
                    self.at -= 1;
                    let tag = self.tags.last().map_or("", |tag| tag);
                    return self.fail(format!(
                        "Unexpected end of template. Jinja was looking for '{}' of the tag '{tag}'",
                        ends.join("' or '")
                    ));
                }
            }
        }
    }

    /// The end of a tag, and the statements up to the next of these.
    fn block(&mut self, ends: &[&str]) -> Out<(Body, Arc<str>)> {
        self.skip_op(":");
        self.expect(&Token::TagEnd, "'%}'")?;
        self.body(ends)
    }

    /// The statement whose name has been read.
    fn statement(&mut self, name: &str, line: u32) -> Out<Vec<StmtKind>> {
        let one = match name {
            "if" => self.condition()?,
            "for" => self.for_loop(line)?,
            "break" => StmtKind::Break,
            "continue" => StmtKind::Continue,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => {
                let name = self.expect_name()?;
                let parameters = self.parameters()?;
                StmtKind::Macro(self.macro_def(name, parameters, "endmacro")?)
            }
            "call" => {
                let parameters = match self.is_op("(") {
                    true => self.parameters()?,
                    false => Vec::new(),
                };
                let call = self.expression(true)?;
                if !matches!(*call.kind, Expr::Call(..)) {
                    return self.fail("expected call");
                }
                StmtKind::CallBlock(
                    self.macro_def("caller".into(), parameters, "endcall")?,
                    call,
                )
            }
            "filter" => {
                let filter = self.filters(None, true)?;
                StmtKind::FilterBlock(filter, self.block(&["endfilter"])?.0)
            }
            // Marks the assistant's words in training; its variables stay inside.
            "generation" => StmtKind::With(Vec::new(), self.block(&["endgeneration"])?.0),
            "block" => {
                let name = self.expect_name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                let (body, _) = self.block(&["endblock"])?;
                self.skip_name(&name);
                StmtKind::With(Vec::new(), body)
            }
            "print" => return self.print(),
            "extends" | "include" | "import" | "from" | "autoescape" => {
                return self.fail(format!("the tag '{name}' is not supported"));
            }
            _ => return self.fail(format!("Encountered unknown tag '{name}'.")),
        };
        Ok(vec![one])
    }

    fn print(&mut self) -> Out<Vec<StmtKind>> {
        let mut printed = Vec::new();
        while *self.peek() != Token::TagEnd {
            if !printed.is_empty() {
                self.expect_op(",")?;
            }
            printed.push(StmtKind::Print(self.expression(true)?));
        }
        Ok(printed)
    }

    fn condition(&mut self) -> Out<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(Tuples {
                no_condition: true,
                ..Tuples::default()
            })?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((test, body));
            let otherwise = match &*end {
                "elif" => continue,
                "else" => self.block(&["endif"])?.0,
                _ => Body::new(),
            };
            return Ok(StmtKind::If {
                branches,
                otherwise,
            });
        }
    }

    fn for_loop(&mut self, line: u32) -> Out<StmtKind> {
        let target = self.target(&["in"], false)?;
        if !self.skip_name("in") {
            return self.fail(format!("expected 'in', got {}", self.described()));
        }
        let iter = self.tuple(Tuples {
            no_condition: true,
            ends: &["recursive", "if"],
            ..Tuples::default()
        })?;
        let test = match self.skip_name("if") {
            true => Some(self.expression(true)?),
            false => None,
        };
        let recursive = self.skip_name("recursive");
        let (body, end) = self.block(&["endfor", "else"])?;
        let otherwise = match &*end {
            "else" => self.block(&["endfor"])?.0,
            _ => Body::new(),
        };
        Ok(StmtKind::For(Arc::new(For {
            line,
            target,
            iter,
            test,
            body,
            otherwise,
            recursive,
        })))
    }

    fn set(&mut self) -> Out<StmtKind> {
        let target = self.target(&[], true)?;
        if self.skip_op("=") {
            return Ok(StmtKind::Set(target, self.tuple(Tuples::default())?));
        }
        let filter = match self.is_op("|") {
            true => Some(self.filters(None, false)?),
            false => None,
        };
        let (body, _) = self.block(&["endset"])?;
        Ok(StmtKind::SetBlock(target, filter, body))
    }

    fn with(&mut self) -> Out<StmtKind> {
        let mut set = Vec::new();
        while *self.peek() != Token::TagEnd {
            if !set.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[], false)?;
            self.expect_op("=")?;
            set.push((target, self.expression(true)?));
        }
        Ok(StmtKind::With(set, self.block(&["endwith"])?.0))
    }

    fn parameters(&mut self) -> Out<Vec<(Arc<str>, Option<Node>)>> {
        let mut parameters: Vec<(Arc<str>, Option<Node>)> = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            let default = match self.skip_op("=") {
                true => Some(self.expression(true)?),
                false => None,
            };
            if default.is_none() && parameters.last().is_some_and(|(_, it)| it.is_some()) {
                return self.fail("non-default argument follows default argument");
            }
            parameters.push((name, default));
        }
        self.expect_op(")")?;
        Ok(parameters)
    }

    fn macro_def(
        &mut self,
        name: Arc<str>,
        parameters: Vec<(Arc<str>, Option<Node>)>,
        end: &str,
    ) -> Out<Arc<MacroDef>> {
        let from = self.at;
        let (body, _) = self.block(&[end])?;
        let names = |word: &str| {
            let is = |(token, _): &(Token, u32)| matches!(token, Token::Name(it) if **it == *word);
            self.tokens[from..self.at].iter().any(is)
        };
        Ok(Arc::new(MacroDef {
            varargs: names("varargs"),
            kwargs: names("kwargs"),
            name,
            parameters,
            body,
        }))
    }

    /// What is assigned to: a name, an attribute of a namespace, several of them.
    fn target(&mut self, ends: &'static [&'static str], attributes: bool) -> Out<Target> {
        let mut targets = Vec::new();
        let mut several = false;
        loop {
            if self.is_tuple_end(ends) {
                break;
            }
            targets.push(self.one_target(attributes)?);
            if !self.skip_op(",") {
                break;
            }
            several = true;
        }
        match (several, targets.pop()) {
            (false, Some(only)) => Ok(only),
            (true, Some(last)) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            (_, None) => self.fail(format!("expected a name, got {}", self.described())),
        }
    }

    fn one_target(&mut self, attributes: bool) -> Out<Target> {
        if self.skip_op("(") {
            let inner = self.nested(|it| it.target(&[], attributes))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.expect_name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&&*name) {
            return self.fail(format!("can't assign to '{name}'"));
        }
        match attributes && self.skip_op(".") {
            true => Ok(Target::Attribute(name, self.expect_name()?)),
            false => Ok(Target::Name(name)),
        }
    }

    /// Whether a list of expressions without brackets ends here.
    pub(super) fn is_tuple_end(&self, ends: &[&str]) -> bool {
        match self.peek() {
            Token::PrintEnd | Token::TagEnd | Token::End => true,
            Token::Op(operator) => matches!(*operator, ")" | "="),
            Token::Name(name) => ends.contains(&&**name),
            _ => false,
        }
    }
}
