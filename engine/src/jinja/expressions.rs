//! Tokens to a tree: expressions, with Jinja's precedences.

use std::sync::Arc;

use super::ast::{Arguments, Comparison, Expr, Node, Operator};
use super::fault::Out;
use super::lexer::Token;
use super::parser::Parser;

/// How a list of expressions without brackets is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tuples {
    /// `a if b` is not one expression here.
    pub(super) no_condition: bool,
    /// It stands in parentheses, so it may be empty.
    pub(super) parentheses: bool,
    /// Names before which it ends.
    pub(super) ends: &'static [&'static str],
}

impl Parser {
    /// One expression, or a tuple of several.
    pub(super) fn tuple(&mut self, how: Tuples) -> Out<Node> {
        let mut items = Vec::new();
        let mut several = false;
        while !self.is_tuple_end(how.ends) {
            items.push(self.expression(!how.no_condition)?);
            if !self.skip_op(",") {
                break;
            }
            several = true;
        }
        if !several {
            if let Some(only) = items.pop() {
                return Ok(only);
            }
            if !how.parentheses {
                return self.fail(format!("Expected an expression, got {}", self.described()));
            }
        }
        self.node(Expr::Tuple(items))
    }

    pub(super) fn expression(&mut self, condition: bool) -> Out<Node> {
        self.nested(|it| match condition {
            true => it.condition_expression(),
            false => it.or(),
        })
    }

    fn condition_expression(&mut self) -> Out<Node> {
        let mut yes = self.or()?;
        while self.skip_name("if") {
            let test = self.or()?;
            let no = match self.skip_name("else") {
                true => Some(self.expression(true)?),
                false => None,
            };
            yes = self.node(Expr::Condition { test, yes, no })?;
        }
        Ok(yes)
    }

    fn or(&mut self) -> Out<Node> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.node(Expr::Or(left, right))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Out<Node> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.node(Expr::And(left, right))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Out<Node> {
        if self.skip_name("not") {
            let inner = self.nested(Self::not)?;
            return self.node(Expr::Not(inner));
        }
        self.compare()
    }

    fn compare(&mut self) -> Out<Node> {
        let first = self.sum()?;
        let mut others = Vec::new();
        while let Some(comparison) = self.comparison() {
            others.push((comparison, self.sum()?));
        }
        match others.is_empty() {
            true => Ok(first),
            false => self.node(Expr::Compare(first, others)),
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let found = match self.peek() {
            Token::Op("==") => Comparison::Eq,
            Token::Op("!=") => Comparison::Ne,
            Token::Op("<") => Comparison::Lt,
            Token::Op("<=") => Comparison::Le,
            Token::Op(">") => Comparison::Gt,
            Token::Op(">=") => Comparison::Ge,
            Token::Name(name) if **name == *"in" => Comparison::In,
            Token::Name(name)
                if **name == *"not" && matches!(self.look(1), Token::Name(it) if **it == *"in") =>
            {
                self.next();
                Comparison::NotIn
            }
            _ => return None,
        };
        self.next();
        Some(found)
    }

    /// The operator here, if it is one of these.
    fn operator(&mut self, among: &[(&str, Operator)]) -> Option<Operator> {
        let Token::Op(found) = self.peek() else {
            return None;
        };
        let (_, operator) = among.iter().find(|(word, _)| word == found)?;
        self.next();
        Some(*operator)
    }

    fn sum(&mut self) -> Out<Node> {
        let mut left = self.concat()?;
        while let Some(operator) = self.operator(&[("+", Operator::Add), ("-", Operator::Sub)]) {
            let right = self.concat()?;
            left = self.node(Expr::Binary(operator, left, right))?;
        }
        Ok(left)
    }

    fn concat(&mut self) -> Out<Node> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut pieces = vec![first];
        while self.skip_op("~") {
            pieces.push(self.product()?);
        }
        self.node(Expr::Concat(pieces))
    }

    fn product(&mut self) -> Out<Node> {
        const OPERATORS: [(&str, Operator); 4] = [
            ("*", Operator::Mul),
            ("/", Operator::Div),
            ("//", Operator::FloorDiv),
            ("%", Operator::Mod),
        ];
        let mut left = self.power()?;
        while let Some(operator) = self.operator(&OPERATORS) {
            let right = self.power()?;
            left = self.node(Expr::Binary(operator, left, right))?;
        }
        Ok(left)
    }

    fn power(&mut self) -> Out<Node> {
        let mut left = self.unary(true)?;
        while self.skip_op("**") {
            let right = self.unary(true)?;
            left = self.node(Expr::Binary(Operator::Pow, left, right))?;
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Out<Node> {
        let node = if self.skip_op("-") {
            let inner = self.nested(|it| it.unary(false))?;
            self.node(Expr::Negative(inner))?
        } else if self.skip_op("+") {
            let inner = self.nested(|it| it.unary(false))?;
            self.node(Expr::Positive(inner))?
        } else {
            self.primary()?
        };
        let node = self.postfix(node)?;
        match with_filters {
            true => self.filter_expression(node),
            false => Ok(node),
        }
    }

    fn primary(&mut self) -> Out<Node> {
        let kind = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match &*name {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    _ => Expr::Name(name),
                }
            }
            Token::Str(mut text) => {
                self.next();
                while let Token::Str(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Expr::Str(text.into())
            }
            Token::Int(number) => {
                self.next();
                Expr::Int(number)
            }
            Token::Float(number) => {
                self.next();
                Expr::Float(number)
            }
            Token::Op("(") => {
                self.next();
                let inner = self.tuple(Tuples {
                    parentheses: true,
                    ..Tuples::default()
                })?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            Token::Op("[") => self.list()?,
            Token::Op("{") => self.dict()?,
            _ => return self.fail(format!("unexpected {}", self.described())),
        };
        self.node(kind)
    }

    fn list(&mut self) -> Out<Expr> {
        self.next();
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("]") {
                    break;
                }
            }
            items.push(self.expression(true)?);
        }
        self.expect_op("]")?;
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Out<Expr> {
        self.next();
        let mut pairs = Vec::new();
        while !self.is_op("}") {
            if !pairs.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression(true)?;
            self.expect_op(":")?;
            pairs.push((key, self.expression(true)?));
        }
        self.expect_op("}")?;
        Ok(Expr::Dict(pairs))
    }

    fn postfix(&mut self, mut node: Node) -> Out<Node> {
        loop {
            node = match self.peek() {
                Token::Op(".") => self.attribute(node)?,
                Token::Op("[") => self.subscript(node)?,
                Token::Op("(") => self.call(node)?,
                _ => return Ok(node),
            };
        }
    }

    fn call(&mut self, node: Node) -> Out<Node> {
        let arguments = self.arguments()?;
        self.node(Expr::Call(node, arguments))
    }

    fn attribute(&mut self, node: Node) -> Out<Node> {
        self.next();
        match self.next() {
            Token::Name(name) => self.node(Expr::Attribute(node, name)),
            Token::Int(index) => {
                let index = self.node(Expr::Int(index))?;
                self.node(Expr::Item(node, index))
            }
            _ => self.fail("expected name or number"),
        }
    }

    fn subscript(&mut self, node: Node) -> Out<Node> {
        self.next();
        let mut parts = Vec::new();
        while !self.is_op("]") {
            if !parts.is_empty() {
                self.expect_op(",")?;
            }
            parts.push(self.subscribed()?);
        }
        self.expect_op("]")?;
        let index = match (parts.len(), parts.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                parts.extend(last);
                self.node(Expr::Tuple(parts))?
            }
        };
        self.node(Expr::Item(node, index))
    }

    fn subscribed(&mut self) -> Out<Node> {
        let start = match self.is_op(":") {
            true => None,
            false => {
                let node = self.expression(true)?;
                if !self.is_op(":") {
                    return Ok(node);
                }
                Some(node)
            }
        };
        self.next();
        let part = |it: &mut Self| match it.is_op(":") || it.is_op("]") || it.is_op(",") {
            true => Ok(None),
            false => it.expression(true).map(Some),
        };
        let stop = part(self)?;
        let step = match self.skip_op(":") {
            true => part(self)?,
            false => None,
        };
        self.node(Expr::Slice([start, stop, step]))
    }

    fn arguments(&mut self) -> Out<Arguments> {
        let mut arguments = Arguments::default();
        let mut first = true;
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("*") {
                arguments.list = Some(self.expression(true)?);
            } else if self.skip_op("**") {
                arguments.mapping = Some(self.expression(true)?);
            } else if let Token::Name(name) = self.peek().clone()
                && *self.look(1) == Token::Op("=")
            {
                self.next();
                self.next();
                arguments.named.push((name, self.expression(true)?));
            } else if arguments.named.is_empty()
                && arguments.list.is_none()
                && arguments.mapping.is_none()
            {
                arguments.positional.push(self.expression(true)?);
            } else {
                return self.fail("invalid syntax for function call expression");
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }

    fn filter_expression(&mut self, mut node: Node) -> Out<Node> {
        loop {
            node = match self.peek() {
                Token::Op("|") => self.filters(Some(node), false)?,
                Token::Name(name) if **name == *"is" => self.test(node)?,
                Token::Op("(") => self.call(node)?,
                _ => return Ok(node),
            };
        }
    }

    /// A chain of filters; `inline`: the first has no bar before it.
    pub(super) fn filters(&mut self, node: Option<Node>, inline: bool) -> Out<Node> {
        let mut node = node;
        let mut inline = inline;
        while inline || self.skip_op("|") {
            inline = false;
            let name = self.dotted()?;
            let arguments = match self.is_op("(") {
                true => self.arguments()?,
                false => Arguments::default(),
            };
            node = Some(self.node(Expr::Filter(node, name, arguments))?);
        }
        match node {
            Some(node) => Ok(node),
            None => self.fail("expected a filter"),
        }
    }

    fn dotted(&mut self) -> Out<Arc<str>> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.expect_name()?).into();
        }
        Ok(name)
    }

    fn test(&mut self, node: Node) -> Out<Node> {
        self.next();
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let mut arguments = Arguments::default();
        match self.peek() {
            Token::Op("(") => arguments = self.arguments()?,
            Token::Name(word) if matches!(&**word, "else" | "or" | "and") => {}
            Token::Name(word) if **word == *"is" => {
                return self.fail("You cannot chain multiple tests with is");
            }
            Token::Name(_)
            | Token::Str(_)
            | Token::Int(_)
            | Token::Float(_)
            | Token::Op("[" | "{") => {
                let argument = self.primary()?;
                arguments.positional.push(self.postfix(argument)?);
            }
            _ => {}
        }
        let node = self.node(Expr::Test(node, name, arguments))?;
        match negated {
            true => self.node(Expr::Not(node)),
            false => Ok(node),
        }
    }
}
