//! Who reads the numbers, and of which deployments he may see any.

use metrics::Label;

use crate::RequestContext;
use crate::absent::Absent;
use crate::access::Reach;
use crate::context::Principal;
use crate::router::{RouteTable, Served};

/// Somebody who asks for numbers.
#[derive(Debug, Clone, Copy)]
pub enum Reader<'a> {
    /// Authentication is off, or the process itself asks: everything.
    All,
    /// No key where one is required: what is of no department.
    Nobody,
    /// The holder of a key.
    Holder(&'a Principal),
}

/// In-house requests have series under the deployment's name behind this.
pub(crate) const IN_HOUSE: &str = "in-house/";

impl<'a> Reader<'a> {
    /// Who sent a request.
    pub(crate) fn of(context: Option<&'a RequestContext>, required: bool) -> Self {
        match context.and_then(|context| context.principal.as_deref()) {
            Some(principal) => Self::Holder(principal),
            None if required => Self::Nobody,
            None => Self::All,
        }
    }

    /// Whether the numbers of a deployment are shown.
    pub(crate) fn sees(self, served: &Served) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => served.audience.shows(None),
            Self::Holder(who) => who.may_see(&served.stable().name, &served.audience),
        }
    }

    /// Whether it is told of a deployment that is meant to be served and is not.
    pub(crate) fn sees_absent(self, absent: &Absent) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => absent.audience.shows(None),
            Self::Holder(who) => who.may_see(&absent.name, &absent.audience),
        }
    }

    /// Whether those of a deployment of this name are. A name that leads nowhere (any more) belongs to nobody that
    /// is known, and is shown to those who see everything.
    pub(super) fn sees_name(self, routes: &RouteTable, name: &str) -> bool {
        match routes.served(name.strip_prefix(IN_HOUSE).unwrap_or(name)) {
            Some(served) => self.sees(served),
            None => self.sees_all(),
        }
    }

    /// Whether a series may be shown, by the deployment that its labels name.
    pub(super) fn sees_labels(self, routes: &RouteTable, labels: &[Label]) -> bool {
        const NAMES: [&str; 3] = ["deployment", "model_name", "model"];
        let mut names = labels.iter().filter(|label| NAMES.contains(&label.key()));
        self.sees_all() || names.all(|label| self.sees_name(routes, label.value()))
    }

    /// Whether nothing is hidden, not even what belongs to nobody that is known.
    pub(crate) fn sees_all(self) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Holder(who) => {
                let everywhere = who.rights.reach == Reach::Everywhere;
                who.rights.metrics || everywhere && who.models.is_none()
            }
        }
    }
}
