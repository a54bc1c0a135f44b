//! A template as a tree.

use std::sync::Arc;

/// A statement, and the line on which it begins.
#[derive(Debug, Clone)]
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) kind: StmtKind,
}

pub(super) type Body = Vec<Stmt>;

#[derive(Debug, Clone)]
pub(super) enum StmtKind {
    Data(Arc<str>),
    Print(Node),
    If {
        branches: Vec<(Node, Body)>,
        otherwise: Body,
    },
    For(Arc<For>),
    Break,
    Continue,
    Set(Target, Node),
    /// `{% set x | filter %}…{% endset %}`
    SetBlock(Target, Option<Node>, Body),
    /// `{% with %}`, and `{% generation %}`, whose variables stay inside too.
    With(Vec<(Target, Node)>, Body),
    Macro(Arc<MacroDef>),
    /// `{% call(…) f(…) %}…{% endcall %}`
    CallBlock(Arc<MacroDef>, Node),
    FilterBlock(Node, Body),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) line: u32,
    pub(super) target: Target,
    pub(super) iter: Node,
    pub(super) test: Option<Node>,
    pub(super) body: Body,
    pub(super) otherwise: Body,
    pub(super) recursive: bool,
}

#[derive(Debug)]
pub(super) struct MacroDef {
    pub(super) name: Arc<str>,
    pub(super) parameters: Vec<(Arc<str>, Option<Node>)>,
    pub(super) body: Body,
    /// Its body speaks of `varargs` or `kwargs`, so that it takes whatever it is given.
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
}

/// What is assigned to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

/// An expression that knows how deep it is: evaluating it recurses so far.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Box<Expr>,
    pub(super) height: u16,
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Name(Arc<str>),
    List(Vec<Node>),
    Tuple(Vec<Node>),
    Dict(Vec<(Node, Node)>),
    Attribute(Node, Arc<str>),
    Item(Node, Node),
    /// Start, stop, step; only within [`Expr::Item`].
    Slice([Option<Node>; 3]),
    Call(Node, Arguments),
    /// Without a value in `{% filter %}`.
    Filter(Option<Node>, Arc<str>, Arguments),
    Test(Node, Arc<str>, Arguments),
    Negative(Node),
    Positive(Node),
    Binary(Operator, Node, Node),
    Concat(Vec<Node>),
    Compare(Node, Vec<(Comparison, Node)>),
    And(Node, Node),
    Or(Node, Node),
    Not(Node),
    /// `yes if test else no`
    Condition {
        test: Node,
        yes: Node,
        no: Option<Node>,
    },
}

/// Arguments of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Node>,
    pub(super) named: Vec<(Arc<str>, Node)>,
    /// `*list`
    pub(super) list: Option<Node>,
    /// `**mapping`
    pub(super) mapping: Option<Node>,
}

impl Arguments {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        let named = self.named.iter().map(|(_, node)| node);
        self.positional
            .iter()
            .chain(named)
            .chain(&self.list)
            .chain(&self.mapping)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

impl Expr {
    /// One more than the highest of what it is made of.
    pub(super) fn height(&self) -> u16 {
        let most = |nodes: &mut dyn Iterator<Item = &Node>| {
            nodes.map(|node| node.height).max().unwrap_or(0)
        };
        let below = match self {
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Name(_) => 0,
            Self::List(nodes) | Self::Tuple(nodes) | Self::Concat(nodes) => most(&mut nodes.iter()),
            Self::Dict(pairs) => most(&mut pairs.iter().flat_map(|(key, value)| [key, value])),
            Self::Attribute(node, _)
            | Self::Negative(node)
            | Self::Positive(node)
            | Self::Not(node) => node.height,
            Self::Item(one, two)
            | Self::Binary(_, one, two)
            | Self::And(one, two)
            | Self::Or(one, two) => one.height.max(two.height),
            Self::Slice(parts) => most(&mut parts.iter().flatten()),
            Self::Call(node, arguments) | Self::Test(node, _, arguments) => {
                node.height.max(most(&mut arguments.nodes()))
            }
            Self::Filter(node, _, arguments) => {
                most(&mut node.iter()).max(most(&mut arguments.nodes()))
            }
            Self::Compare(first, others) => first
                .height
                .max(most(&mut others.iter().map(|(_, node)| node))),
            Self::Condition { test, yes, no } => {
                most(&mut [test, yes].into_iter().chain(no.iter()))
            }
        };
        below.saturating_add(1)
    }
}
