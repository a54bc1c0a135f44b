//! Deployments that are meant to be served here and are not: still being loaded, or not to be
//! loaded at all.
//!
//! A client that asks for one gets 503 and comes again; 404 would tell it that its model is gone.
//! Each source of routes says what it means to serve; what the route table holds is served, and
//! so never absent, whatever was said before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::access::Audience;
use crate::router::{RouteTable, Source};
use crate::{Gateway, Principal};

/// Why a deployment is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// Its model is being loaded.
    Loading,
    /// Its model cannot be loaded, with the reason; it is tried again.
    Failed(String),
}

/// A deployment that is meant to be served and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// What clients send as `model`.
    pub name: Arc<str>,
    /// Why.
    pub why: Absence,
    /// Who may know of it: whoever may use it.
    pub audience: Arc<Audience>,
}

impl Absent {
    /// One whose model is being loaded.
    #[must_use]
    pub fn loading(name: &str, audience: Audience) -> Self {
        Self {
            name: name.into(),
            why: Absence::Loading,
            audience: Arc::new(audience),
        }
    }

    /// One whose model cannot be loaded.
    #[must_use]
    pub fn failed(name: &str, reason: impl Into<String>, audience: Audience) -> Self {
        Self {
            name: name.into(),
            why: Absence::Failed(reason.into()),
            audience: Arc::new(audience),
        }
    }
}

/// All that are absent, by name.
#[derive(Debug, Default)]
pub struct Absentees {
    by_name: ArcSwap<BTreeMap<Arc<str>, Absent>>,
    parts: Mutex<Parts>,
}

/// What each source has said last.
#[derive(Debug, Default)]
struct Parts {
    said: [Vec<Absent>; 3],
    /// A source has not said yet what it means to serve.
    unread: bool,
}

impl Absentees {
    /// Replaces what one source means to serve and does not.
    pub(crate) fn replace(&self, source: Source, absent: Vec<Absent>) {
        let mut parts = self.parts.lock();
        parts.said[source as usize] = absent;
        let all = parts.said.iter().flatten();
        let by_name = all.map(|it| (Arc::clone(&it.name), it.clone())).collect();
        self.by_name.store(Arc::new(by_name));
    }

    /// Whether it is known yet what there is to serve. Until then no name is unknown.
    pub(crate) fn set_unread(&self, unread: bool) {
        self.parts.lock().unread = unread;
    }

    /// Why a name that the table does not have is not served; `None` where it is unknown, or
    /// `who` may not know of it.
    pub(crate) fn why(&self, name: &str, who: Option<&Principal>) -> Option<Absence> {
        if let Some(absent) = self.by_name.load().get(name) {
            let may_know = who.is_none_or(|who| who.may_use(name, &absent.audience));
            return may_know.then(|| absent.why.clone());
        }
        self.parts.lock().unread.then_some(Absence::Loading)
    }

    /// Those that the table does not have.
    pub(crate) fn beside(&self, routes: &RouteTable) -> Vec<Absent> {
        let all = self.by_name.load();
        let absent = all.values().filter(|it| routes.find(&it.name).is_none());
        absent.cloned().collect()
    }
}

impl Gateway {
    /// Whether the process is on its way to its end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// From now on the process finishes what it has and takes nothing more.
    pub fn drain(&self) {
        self.set_ready(false);
        self.draining.store(true, Relaxed);
    }

    /// Says what a source means to serve and does not, now: all of it, each time.
    pub fn expect(&self, source: Source, absent: Vec<Absent>) {
        self.absent.replace(source, absent);
    }

    /// Says whether it is known yet what there is to serve. Until it is, no name is unknown.
    pub fn set_unread(&self, unread: bool) {
        self.absent.set_unread(unread);
    }

    /// What is meant to be served and is not.
    #[must_use]
    pub fn absent(&self) -> Vec<Absent> {
        self.absent.beside(&self.routes())
    }

    /// Why a model that the table does not have is not served; `None` where it is unknown.
    pub(crate) fn absence(&self, model: &str, who: Option<&Principal>) -> Option<Absence> {
        self.absent.why(model, who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_says_its_own_and_takes_it_back() {
        let all = Absentees::default();
        assert_eq!(all.why("a", None), None);
        all.replace(
            Source::File,
            vec![Absent::loading("a", Audience::default())],
        );
        all.replace(
            Source::Control,
            vec![Absent::failed("b", "no bytes", Audience::default())],
        );
        assert_eq!(all.why("a", None), Some(Absence::Loading));
        assert_eq!(all.why("b", None), Some(Absence::Failed("no bytes".into())));
        all.replace(Source::File, Vec::new());
        assert_eq!(all.why("a", None), None);
        assert_eq!(all.beside(&RouteTable::default()).len(), 1);
    }

    #[test]
    fn before_the_records_were_read_no_name_is_unknown() {
        let all = Absentees::default();
        all.set_unread(true);
        assert_eq!(all.why("a", None), Some(Absence::Loading));
        all.set_unread(false);
        assert_eq!(all.why("a", None), None);
    }
}
