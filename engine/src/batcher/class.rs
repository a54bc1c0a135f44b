//! The items of one priority, in order of age and of length.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Budget, Item};

#[derive(Debug)]
pub(super) struct Class<T> {
    /// Arrival number → when it arrived, and its tokens.
    by_age: BTreeMap<u64, (Instant, usize)>,
    by_length: BTreeMap<(usize, u64), Item<T>>,
    tokens: usize,
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self {
            by_age: BTreeMap::new(),
            by_length: BTreeMap::new(),
            tokens: 0,
        }
    }
}

impl<T> Class<T> {
    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn insert(&mut self, number: u64, now: Instant, item: Item<T>) {
        self.tokens += item.tokens;
        self.by_age.insert(number, (now, item.tokens));
        self.by_length.insert((item.tokens, number), item);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Item<T>> {
        let (_, tokens) = self.by_age.remove(&number)?;
        self.tokens -= tokens;
        self.by_length.remove(&(tokens, number))
    }

    /// The item that arrived first.
    pub(super) fn oldest(&self) -> Option<(u64, Instant)> {
        let (&number, &(arrived, _)) = self.by_age.first_key_value()?;
        Some((number, arrived))
    }

    /// Item `number` and its nearest neighbours in length, as many as the budget
    /// allows, longest first.
    pub(super) fn around(&self, number: u64, budget: &Budget) -> Vec<u64> {
        let Some(&(_, tokens)) = self.by_age.get(&number) else {
            return Vec::new();
        };
        let key = (tokens, number);
        let mut shorter = self
            .by_length
            .range(..key)
            .rev()
            .map(|(&key, _)| key)
            .peekable();
        let mut longer = self
            .by_length
            .range(key..)
            .skip(1)
            .map(|(&key, _)| key)
            .peekable();
        let (mut shape, mut batch) = (Shape::of(tokens), vec![key]);
        while batch.len() < budget.items {
            // The neighbour that wastes less; of equals the older one.
            let below = shorter.peek().map(|&key| (shape.padding_of(key.0), key.1));
            let above = longer.peek().map(|&key| (shape.padding_of(key.0), key.1));
            let take_shorter = match (below, above) {
                (Some(below), Some(above)) => below < above,
                (below, _) => below.is_some(),
            };
            let side: &mut dyn Iterator<Item = (usize, u64)> = match take_shorter {
                true => &mut shorter,
                false => &mut longer,
            };
            let Some(key) = side.next() else { break };
            let grown = shape.with(key.0);
            let padding = shape.padding_of(key.0);
            if padding > budget.padding || grown.padded() > budget.tokens {
                break;
            }
            shape = grown;
            batch.push(key);
        }
        batch.sort_unstable_by(|a, b| b.cmp(a));
        batch.into_iter().map(|(_, number)| number).collect()
    }
}

/// Size of a padded batch.
#[derive(Clone, Copy)]
struct Shape {
    items: usize,
    longest: usize,
}

impl Shape {
    fn of(tokens: usize) -> Self {
        Self {
            items: 1,
            longest: tokens,
        }
    }

    fn with(self, tokens: usize) -> Self {
        Self {
            items: self.items + 1,
            longest: self.longest.max(tokens),
        }
    }

    fn padded(self) -> usize {
        self.items.saturating_mul(self.longest)
    }

    /// Padding that an item of `tokens` adds: its own when it is shorter than
    /// the longest, everybody else's when it is longer.
    fn padding_of(self, tokens: usize) -> usize {
        if tokens <= self.longest {
            self.longest - tokens
        } else {
            (tokens - self.longest).saturating_mul(self.items)
        }
    }
}
