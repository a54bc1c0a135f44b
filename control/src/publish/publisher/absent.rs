//! What is live by the records and not served by this process, as the data plane is told of it.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_gateway::absent::Absent;
use sluice_gateway::access::{Audience, Clearance};
use sluice_gateway::router::Source;

use super::{Failure, Publisher, told};
use crate::deploy::Blueprint;
use crate::publish::Snapshot;
use crate::publish::keys::entries;
use crate::time::Timestamp;

impl Publisher {
    /// Says what will be served before anything is loaded, as far as this machine knows, and lets those in who
    /// may ask for it: they are told to come again, and not that key or model were unknown.
    pub fn expect_kept(&self) {
        let Some(kept) = self.file.read() else {
            self.gateway.set_unread(true);
            return;
        };
        self.tell_absent(&kept.snapshot, &HashMap::new());
        // Nobody holds it yet. If somebody does, the snapshot is being served.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        state.counters.follow(&kept.snapshot.quotas);
        let keys = entries(&kept.snapshot, &state.counters, Timestamp::now());
        if let Err(error) = self.gateway.publish_keys(keys) {
            tracing::error!(%error, "the keys of the last snapshot are not known before its models are loaded");
        }
    }

    /// Says which live deployments this process does not serve, and why.
    pub(super) fn tell_absent(&self, snapshot: &Snapshot, failures: &HashMap<Arc<str>, Failure>) {
        let missing = snapshot.revisions.iter();
        let missing = missing.filter(|it| self.routes.place(it.deployment).is_none());
        let absent = missing.filter_map(|revision| {
            // What cannot be read was said in the log, and has no name.
            let blueprint = Blueprint::of(revision).ok()?;
            let mut audiences = snapshot.audiences.iter();
            let audience = audiences.find(|it| it.deployment == revision.deployment);
            // Where nothing is known of who may use it, only those are told who may everything.
            let audience =
                audience.map_or_else(|| Audience::of_department("", Clearance::Secret), told);
            Some(match failures.get(&blueprint.key) {
                Some(failure) => Absent::failed(&blueprint.name, &*failure.why, audience),
                None => Absent::loading(&blueprint.name, audience),
            })
        });
        self.gateway.expect(Source::Control, absent.collect());
    }
}
