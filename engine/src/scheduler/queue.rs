//! Who is next: strict priorities with ageing, and within a priority deficit
//! round robin over tenants, in tokens (Shreedhar & Varghese 1995).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sequence::{SequenceId, Waiting};
use crate::request::Priority;

/// A class that has waited for [`WaitingQueue::ageing`] gets one of so many
/// admissions.
pub const AGED_SHARE: u32 = 8;

/// Tokens a tenant may take per round.
pub(super) const QUANTUM: i64 = 512;

/// The waiting sequences. Bounded by admission (see `GeneratorHandle::submit`).
#[derive(Debug)]
pub(super) struct WaitingQueue {
    ageing: Duration,
    classes: [ClassQueue; 3],
    places: HashMap<SequenceId, (Priority, Arc<str>)>,
    /// Admissions since the last that ageing brought forward.
    since_aged: u32,
}

impl WaitingQueue {
    pub(super) fn new(ageing: Duration) -> Self {
        Self {
            ageing,
            classes: Default::default(),
            places: HashMap::new(),
            since_aged: AGED_SHARE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sequences of a priority above `priority`.
    pub(super) fn len_above(&self, priority: Priority) -> usize {
        self.classes[priority as usize + 1..]
            .iter()
            .map(|class| class.len)
            .sum()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        let priority = waiting.sequence.priority;
        let tenant = Arc::clone(&waiting.sequence.tenant);
        self.places.insert(waiting.sequence.id, (priority, tenant));
        self.classes[priority as usize].push(waiting);
    }

    /// The next to start, with its cost (in tokens) charged to its tenant.
    pub(super) fn pop(
        &mut self,
        now: Instant,
        cost: impl Fn(&Waiting) -> usize,
    ) -> Option<Waiting> {
        let highest = self.classes.iter().rposition(|class| class.len > 0)?;
        let aged = if self.since_aged + 1 >= AGED_SHARE {
            let due = |since| now.saturating_duration_since(since) >= self.ageing;
            self.classes[..highest]
                .iter()
                .rposition(|class| class.oldest().is_some_and(due))
        } else {
            None
        };
        self.since_aged = match aged {
            Some(_) => 0,
            None => self.since_aged.saturating_add(1),
        };
        let mut waiting = self.classes[aged.unwrap_or(highest)].pop(&cost)?;
        waiting.charged += cost(&waiting);
        waiting.aged = aged.is_some();
        self.places.remove(&waiting.sequence.id);
        Some(waiting)
    }

    /// Takes a sequence out of the queue, wherever it stands.
    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Waiting> {
        let (priority, tenant) = self.places.remove(&id)?;
        self.classes[priority as usize].remove(&tenant, id)
    }

    /// Corrects what a tenant was charged, if it still waits for something.
    pub(super) fn settle(&mut self, priority: Priority, tenant: &Arc<str>, refund: i64) {
        if let Some(tenant) = self.classes[priority as usize].tenants.get_mut(tenant) {
            tenant.deficit += refund;
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SequenceId> {
        self.places.keys().copied()
    }
}

/// Deficit round robin over the tenants of one priority.
#[derive(Debug, Default)]
struct ClassQueue {
    tenants: HashMap<Arc<str>, Tenant>,
    /// Tenants that wait for something; the front one is being served.
    turns: VecDeque<Arc<str>>,
    /// The front tenant has had its quantum of this round.
    topped_up: bool,
    len: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    queue: VecDeque<Waiting>,
    /// Tokens it may still take in this round; negative: taken too much.
    deficit: i64,
}

impl ClassQueue {
    fn push(&mut self, waiting: Waiting) {
        let name = Arc::clone(&waiting.sequence.tenant);
        let tenant = self.tenants.entry(Arc::clone(&name)).or_default();
        if tenant.queue.is_empty() {
            self.turns.push_back(name);
        }
        // What was preempted goes on before what never began.
        if waiting.resumed.is_some() {
            tenant.queue.push_front(waiting);
        } else {
            tenant.queue.push_back(waiting);
        }
        self.len += 1;
    }

    fn pop(&mut self, cost: &impl Fn(&Waiting) -> usize) -> Option<Waiting> {
        let mut visited = 0;
        loop {
            let name = Arc::clone(self.turns.front()?);
            let tenant = self.tenants.get_mut(&name)?;
            if !self.topped_up {
                tenant.deficit += QUANTUM;
                self.topped_up = true;
            }
            let price = cost(tenant.queue.front()?) as i64;
            if tenant.deficit >= price {
                tenant.deficit -= price;
                let waiting = tenant.queue.pop_front();
                self.len -= 1;
                if tenant.queue.is_empty() {
                    self.leave(&name);
                }
                return waiting;
            }
            self.turns.rotate_left(1);
            self.topped_up = false;
            visited += 1;
            if visited == self.turns.len() {
                self.skip_rounds(cost);
                visited = 0;
            }
        }
    }

    /// A whole round served nobody: goes through the rounds that would serve
    /// nobody either in one stride.
    fn skip_rounds(&mut self, cost: &impl Fn(&Waiting) -> usize) {
        let rounds = self
            .tenants
            .values()
            .filter_map(|tenant| {
                let missing = cost(tenant.queue.front()?) as i64 - tenant.deficit;
                Some((missing + QUANTUM - 1).div_euclid(QUANTUM))
            })
            .min()
            .unwrap_or(1);
        for tenant in self.tenants.values_mut() {
            tenant.deficit += (rounds - 1).max(0) * QUANTUM;
        }
    }

    fn remove(&mut self, tenant: &Arc<str>, id: SequenceId) -> Option<Waiting> {
        let held = self.tenants.get_mut(tenant)?;
        let place = held.queue.iter().position(|w| w.sequence.id == id)?;
        let waiting = held.queue.remove(place);
        self.len -= 1;
        if held.queue.is_empty() {
            self.leave(tenant);
        }
        waiting
    }

    /// A tenant that waits for nothing has no account: it can't save up.
    fn leave(&mut self, tenant: &Arc<str>) {
        self.tenants.remove(tenant);
        if self.turns.front() == Some(tenant) {
            self.topped_up = false;
        }
        self.turns.retain(|name| name != tenant);
    }

    fn oldest(&self) -> Option<Instant> {
        self.tenants
            .values()
            .filter_map(|tenant| Some(tenant.queue.front()?.since))
            .min()
    }
}
