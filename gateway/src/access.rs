//! Who may use which deployment.
//!
//! A key carries [`Rights`], an entry of the route table [`Audience`]; both are values that whoever knows people and
//! records publishes beforehand. Asking one about the other is a few comparisons: no lock, no allocation, no
//! database. A department is known by its name, which configuration files and records share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How secret something is, and how secret what somebody may use. Ordered from the least secret.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Clearance {
    /// For everybody.
    #[default]
    Public,
    /// For everybody inside.
    Internal,
    /// For those who need it.
    Confidential,
    /// For few.
    Secret,
}

/// How far a key reaches beyond what was granted to its holder by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// Nothing beyond it: an annotator's.
    Named,
    /// What is its department's, granted to that, or open to all.
    #[default]
    Department,
    /// All departments: an administrator's.
    Everywhere,
}

/// What the holder of a key brings along.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// How far it reaches.
    pub reach: Reach,
    /// The most secret that it may use.
    pub clearance: Clearance,
    /// Name of the department that it belongs to; `None` is of no department.
    pub department: Option<Arc<str>>,
    /// The id that grants name the holder by; `None` has no grants.
    pub person: Option<Arc<str>>,
    /// May read the numbers of all departments (`metrics = true` in the keys file): for a monitoring system.
    pub metrics: bool,
    /// May read numbers, and ask no model.
    pub looks_only: bool,
}

impl Rights {
    /// Everything: the process's own requests.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            reach: Reach::Everywhere,
            clearance: Clearance::Secret,
            ..Self::default()
        }
    }
}

/// Who may use an entry of the route table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// The least clearance that it takes.
    clearance: Clearance,
    /// Whose it is; `None` where it is nobody's in particular, and so open to all.
    department: Option<Arc<str>>,
    /// Whether all departments may use it.
    open: bool,
    /// Whom it was granted to, by id; sorted.
    people: Box<[Arc<str>]>,
    /// Departments that it was granted to, by name; sorted.
    departments: Box<[Arc<str>]>,
}

impl Audience {
    /// Of no department and open to all who have the clearance.
    #[must_use]
    pub fn to_all(clearance: Clearance) -> Self {
        Self {
            clearance,
            ..Self::default()
        }
    }

    /// Of one department only.
    #[must_use]
    pub fn of_department(department: impl Into<Arc<str>>, clearance: Clearance) -> Self {
        Self {
            clearance,
            department: Some(department.into()),
            ..Self::default()
        }
    }

    /// The same, open to all departments or not.
    #[must_use]
    pub fn opened(self, open: bool) -> Self {
        Self { open, ..self }
    }

    /// The same, granted to these people (by id) and departments (by name) as well.
    #[must_use]
    pub fn granted(self, mut people: Vec<Arc<str>>, mut departments: Vec<Arc<str>>) -> Self {
        people.sort_unstable();
        departments.sort_unstable();
        Self {
            people: people.into(),
            departments: departments.into(),
            ..self
        }
    }

    /// Whether a key with these rights may use it.
    #[must_use]
    pub fn admits(&self, who: &Rights) -> bool {
        if self.clearance > who.clearance {
            return false;
        }
        let named = || contains(&self.people, who.person.as_ref());
        match who.reach {
            Reach::Everywhere => true,
            Reach::Named => named(),
            Reach::Department => {
                self.is_of(who)
                    || self.is_open()
                    || contains(&self.departments, who.department.as_ref())
                    || named()
            }
        }
    }

    /// Whether its name and numbers may be shown: to whom it admits and to its own department, whatever the
    /// clearance, as its records are. `None` has shown no key where one is required.
    #[must_use]
    pub fn shows(&self, who: Option<&Rights>) -> bool {
        match who {
            None => self.department.is_none() && self.clearance == Clearance::Public,
            Some(who) => {
                who.metrics
                    || who.reach == Reach::Everywhere
                    || who.reach == Reach::Department && self.is_of(who)
                    || self.admits(who)
            }
        }
    }

    fn is_open(&self) -> bool {
        self.open || self.department.is_none()
    }

    fn is_of(&self, who: &Rights) -> bool {
        self.department.is_some() && self.department == who.department
    }
}

fn contains(sorted: &[Arc<str>], wanted: Option<&Arc<str>>) -> bool {
    wanted.is_some_and(|wanted| sorted.binary_search(wanted).is_ok())
}

#[cfg(test)]
mod tests;
