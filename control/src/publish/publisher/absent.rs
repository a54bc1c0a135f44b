//! What is live by the records and not served by this process, as the data plane is told of it.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_gateway::absent::Absent;
use sluice_gateway::router::Source;

use super::{Failure, Publisher};
use crate::deploy::Blueprint;
use crate::publish::Snapshot;

impl Publisher {
    /// Says what will be served before anything is loaded, as far as this machine knows: clients that
    /// ask for it are told to come again.
    pub fn expect_kept(&self) {
        match self.file.read() {
            Some(kept) => self.tell_absent(&kept.snapshot, &HashMap::new()),
            None => self.gateway.set_unread(true),
        }
    }

    /// Says which live deployments this process does not serve, and why.
    pub(super) fn tell_absent(&self, snapshot: &Snapshot, failures: &HashMap<Arc<str>, Failure>) {
        let missing = snapshot.revisions.iter();
        let missing = missing.filter(|it| self.routes.place(it.deployment).is_none());
        let absent = missing.filter_map(|revision| {
            // What cannot be read was said in the log, and has no name.
            let blueprint = Blueprint::of(revision).ok()?;
            Some(match failures.get(&blueprint.key) {
                Some(failure) => Absent::failed(&blueprint.name, &*failure.why),
                None => Absent::loading(&blueprint.name),
            })
        });
        self.gateway.expect(Source::Control, absent.collect());
    }
}
