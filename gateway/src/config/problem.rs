//! What is wrong with a configuration, field by field: all of it at once, since who mends a file wants to
//! do so once.

use serde::Serialize;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Path of the field, such as `deployment.1.upstream`.
    pub field: String,
    /// What is wrong and what would be right; reads on from the field's name.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {}", self.field, self.message)
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes what is wrong with a field. Of one field only the first is kept: what follows mostly follows from it.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        if self.0.iter().all(|known| known.field != field) {
            self.0.push(Problem { field, message });
        }
    }

    /// Notes the problem of a field unless `right`.
    pub fn expect(&mut self, right: bool, field: &str, message: &str) {
        if !right {
            self.add(field, message);
        }
    }

    /// Whether anything is wrong with a field, or with one below it.
    #[must_use]
    pub fn concern(&self, field: &str) -> bool {
        self.0.iter().any(|known| {
            let rest = known.field.strip_prefix(field);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// All that was found, in the order in which it was.
    #[must_use]
    pub fn into_inner(self) -> Vec<Problem> {
        self.0
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, more: I) {
        for Problem { field, message } in more {
            self.add(field, message);
        }
    }
}

/// Problems of the fields below one.
pub(super) struct Below<'a> {
    pub problems: &'a mut Problems,
    pub above: String,
}

impl Below<'_> {
    pub(super) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.problems
            .add(format!("{}.{field}", self.above), message);
    }

    pub(super) fn expect(&mut self, right: bool, field: &str, message: &str) {
        if !right {
            self.add(field, message);
        }
    }
}
