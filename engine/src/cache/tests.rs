#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

/// A cache beside the arena that its copies would act on.
struct Arena {
    cache: SlotCache,
    cells: Vec<Vec<u32>>,
    leases: Vec<SlotLease>,
}

impl Arena {
    fn new(slots: u32, capacity: usize) -> Self {
        Self {
            cache: SlotCache::new(slots, capacity, true),
            cells: vec![Vec::new(); slots as usize],
            leases: Vec::new(),
        }
    }

    fn carry_out(&mut self, copies: &[CopyPrefix]) {
        for copy in copies {
            assert_ne!(copy.from, copy.to);
            let prefix = self.cells[copy.from as usize][..copy.tokens as usize].to_vec();
            self.cells[copy.to as usize] = prefix;
        }
    }

    /// Leases for a prompt and computes all of it; the index of the lease.
    fn run(&mut self, prompt: &[u32]) -> Option<(usize, usize)> {
        self.run_under(CacheSalt::default(), prompt)
    }

    fn run_under(&mut self, salt: CacheSalt, prompt: &[u32]) -> Option<(usize, usize)> {
        let key = self.cache.key(salt, prompt);
        let found = self.cache.match_prefix(&key, prompt, prompt.len() - 1);
        let mut copies = Vec::new();
        let lease = self.cache.lease(salt, found, &mut copies)?;
        self.carry_out(&copies);
        let cached = found.map_or(0, |found| found.tokens);
        assert_eq!(self.cache.held(&lease), cached);
        self.leases.push(lease);
        let last = self.leases.len() - 1;
        self.grow(last, &prompt[cached..]);
        Some((last, cached))
    }

    fn grow(&mut self, lease: usize, tokens: &[u32]) {
        let lease = &self.leases[lease];
        let cells = &mut self.cells[lease.slot() as usize];
        cells.truncate(self.cache.held(lease));
        cells.extend(tokens);
        self.cache.grow(lease, tokens);
    }

    fn end(&mut self, lease: usize) -> u32 {
        let lease = self.leases.remove(lease);
        let slot = lease.slot();
        self.cache.release(lease);
        slot
    }

    fn check(&self) {
        let mut entries = 0;
        for (slot, cells) in self.cache.slots.iter().zip(&self.cells) {
            assert!(
                cells.starts_with(&slot.tokens),
                "the arena holds what the cache says"
            );
            assert_eq!(slot.key, self.cache.key(slot.key.salt(), &slot.tokens));
            entries += slot.key.blocks();
            assert!(slot.tokens.len() <= self.cache.capacity());
            assert!(slot.leased || slot.tokens.len() < self.cache.capacity());
        }
        assert_eq!(self.cache.index.entries(), entries, "the index is exact");
        let mut leased: Vec<_> = self.leases.iter().map(SlotLease::slot).collect();
        leased.sort_unstable();
        leased.dedup();
        assert_eq!(leased.len(), self.leases.len(), "no slot has two owners");
        assert_eq!(leased.len() + self.cache.free(), self.cells.len());
    }
}

#[test]
fn leases_stay_low_and_the_cached_moves_out_of_the_way() {
    let mut arena = Arena::new(4, 64);
    arena.run(&tokens(0..40)).unwrap();
    assert_eq!(arena.end(0), 0);
    // Something else: slot 0 again, and what was there is kept, elsewhere.
    arena.run(&tokens(100..140)).unwrap();
    assert_eq!(arena.leases[0].slot(), 0);
    arena.check();
    let (_, cached) = arena.run(&tokens(0..41)).unwrap();
    assert_eq!(cached, 40);
    assert_eq!(arena.cache.range(), 2);
    arena.check();
}

#[test]
fn the_same_conversation_goes_on_in_place() {
    let mut arena = Arena::new(4, 64);
    arena.run(&tokens(0..40)).unwrap();
    arena.end(0);
    let before = arena.cells.clone();
    let key = arena.cache.key(CacheSalt::default(), &tokens(0..60));
    let found = arena.cache.match_prefix(&key, &tokens(0..60), 59);
    let mut copies = Vec::new();
    let lease = arena
        .cache
        .lease(CacheSalt::default(), found, &mut copies)
        .unwrap();
    assert_eq!((lease.slot(), copies), (0, vec![]));
    assert_eq!(arena.cells, before);
    arena.leases.push(lease);
    arena.check();
}

#[test]
fn a_shared_beginning_is_copied_when_the_rest_is_worth_keeping() {
    let mut arena = Arena::new(4, 128);
    let system = tokens(0..32);
    let first: Vec<u32> = system.iter().copied().chain(200..260).collect();
    let second: Vec<u32> = system.iter().copied().chain(300..360).collect();
    arena.run(&first).unwrap();
    arena.end(0);
    let (_, cached) = arena.run(&second).unwrap();
    assert_eq!(cached, 32);
    arena.check();
    let longer: Vec<u32> = first.iter().copied().chain(400..410).collect();
    let (_, cached) = arena.run(&longer).unwrap();
    assert_eq!(cached, first.len(), "the first conversation is still there");
}

#[test]
fn what_a_running_sequence_has_computed_is_shared() {
    let mut arena = Arena::new(2, 64);
    arena.run(&tokens(0..40)).unwrap();
    let (second, cached) = arena.run(&tokens(0..40)).unwrap();
    assert_eq!(
        cached, 39,
        "all but the last token, whose logits are wanted"
    );
    assert_ne!(arena.leases[0].slot(), arena.leases[second].slot());
    arena.check();
}

#[test]
fn the_least_recently_used_is_given_up_first() {
    let mut arena = Arena::new(3, 64);
    for start in [0, 100, 200] {
        arena.run(&tokens(start..start + 40)).unwrap();
    }
    for _ in 0..3 {
        arena.end(0);
    }
    // The first is used again, so the second is the oldest.
    arena.run(&tokens(0..45)).unwrap();
    arena.end(0);
    arena.run(&tokens(300..340)).unwrap();
    arena.check();
    let held = |start: u32| {
        let prompt = tokens(start..start + 50);
        let key = arena.cache.key(CacheSalt::default(), &prompt);
        let found = arena.cache.match_prefix(&key, &prompt, 49);
        found.map_or(0, |found| found.tokens)
    };
    assert_eq!((held(0), held(100), held(200)), (45, 0, 40));
}

#[test]
fn equal_hashes_of_different_tokens_are_no_match() {
    let mut arena = Arena::new(2, 64);
    arena.run(&tokens(0..40)).unwrap();
    // As if the hashes of these tokens collided with those held.
    let key = arena.cache.key(CacheSalt::default(), &tokens(0..40));
    let others = tokens(500..540);
    assert_eq!(arena.cache.match_prefix(&key, &others, 39), None);
}

#[test]
fn the_highest_lease_moves_down_when_it_has_long_to_go() {
    let mut arena = Arena::new(4, 512);
    for start in [0, 1000, 2000] {
        arena.run(&tokens(start..start + 100)).unwrap();
    }
    arena.end(0);
    let highest = &arena.leases[1];
    assert_eq!(highest.slot(), 2);
    assert_eq!(
        arena.cache.compaction(highest, 1),
        None,
        "one step is not worth it"
    );
    let hole = arena.cache.compaction(highest, 100);
    // The empty slot 3 is no use; slot 0 holds the ended sequence, and is below.
    assert_eq!(hole, Some(0));
    let mut copies = Vec::new();
    let mut lease = arena.leases.remove(1);
    arena.cache.relocate(&mut lease, 0, &mut copies);
    arena.carry_out(&copies);
    arena.leases.push(lease);
    assert_eq!(arena.cache.range(), 2);
    arena.check();
}

#[test]
fn nothing_is_reused_across_salts_running_or_ended() {
    let (ours, theirs) = (CacheSalt::of(&["ours"]), CacheSalt::of(&["theirs"]));
    let mut arena = Arena::new(3, 64);
    assert_eq!(arena.run_under(ours, &tokens(0..40)), Some((0, 0)));
    assert_eq!(arena.run_under(theirs, &tokens(0..40)), Some((1, 0)));
    arena.check();
    arena.end(0);
    arena.end(0);
    arena.check();
    // Each finds its own, also where the other's lies nearer, and nobody finds a stranger's.
    assert_eq!(arena.run_under(theirs, &tokens(0..50)), Some((0, 40)));
    assert_eq!(arena.run_under(ours, &tokens(0..50)), Some((1, 40)));
    let stranger = CacheSalt::of(&["stranger"]);
    assert_eq!(arena.run_under(stranger, &tokens(0..50)), Some((2, 0)));
    arena.check();
}

#[test]
fn a_salt_is_that_of_its_texts_as_they_are_divided() {
    assert_eq!(CacheSalt::of(&["a", "b"]), CacheSalt::of(&["a", "b"]));
    assert_ne!(CacheSalt::of(&["a", "b"]), CacheSalt::of(&["ab"]));
    assert_ne!(CacheSalt::of(&["a", "bc"]), CacheSalt::of(&["ab", "c"]));
    assert_ne!(CacheSalt::of(&[]), CacheSalt::default());
}

#[test]
fn nothing_is_reused_when_reuse_is_off() {
    let mut cache = SlotCache::new(2, 64, false);
    let prompt = tokens(0..40);
    let key = cache.key(CacheSalt::default(), &prompt);
    let lease = cache
        .lease(CacheSalt::default(), None, &mut Vec::new())
        .unwrap();
    cache.grow(&lease, &prompt);
    assert_eq!(cache.match_prefix(&key, &prompt, 39), None);
    cache.release(lease);
    assert_eq!(cache.match_prefix(&key, &prompt, 39), None);
    assert_eq!(cache.tokens_held(), (0, 0));
}

#[derive(Debug, Clone)]
enum Op {
    Run {
        family: u32,
        shared: usize,
        own: usize,
        salt: u32,
    },
    Grow {
        lease: usize,
        tokens: usize,
    },
    End {
        lease: usize,
        discard: bool,
    },
    Compact {
        steps: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3u32, 0..60usize, 1..30usize, 0..4u32)
            .prop_map(|(family, shared, own, salt)| Op::Run { family, shared, own, salt }),
        2 => (0..8usize, 1..20usize).prop_map(|(lease, tokens)| Op::Grow { lease, tokens }),
        3 => (0..8usize, prop::bool::weighted(0.1))
            .prop_map(|(lease, discard)| Op::End { lease, discard }),
        1 => (0..50usize).prop_map(|steps| Op::Compact { steps }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever happens: the arena holds what the cache believes, the index is
    /// exact, and a match is never shorter than the best there is by blocks.
    #[test]
    fn the_cache_never_lies(ops in prop::collection::vec(op(), 1..80), slots in 1..6u32) {
        let mut arena = Arena::new(slots, 96);
        for op in ops {
            match op {
                Op::Run { family, shared, own, salt } => {
                    let shared = (0..shared as u32).map(|i| family % 2 * 1000 + i);
                    let own = (0..own as u32).map(|i| 9000 + salt * 100 + i);
                    let prompt: Vec<u32> = shared.chain(own).collect();
                    // One family is of somebody else, who shares tokens with the first.
                    let under = CacheSalt::of(if family == 2 { &["b"] } else { &["a"] });
                    let key = arena.cache.key(under, &prompt);
                    let best = arena.cache.slots.iter()
                        .filter(|slot| slot.key.salt() == under)
                        .map(|slot| common_prefix(&prompt, &slot.tokens))
                        .max()
                        .unwrap_or(0)
                        .min(prompt.len() - 1);
                    let found = arena.cache.match_prefix(&key, &prompt, prompt.len() - 1);
                    let found = found.map_or(0, |found| found.tokens);
                    prop_assert_eq!(found, if best < BLOCK { 0 } else { best });
                    arena.run_under(under, &prompt);
                }
                Op::Grow { lease, tokens } if lease < arena.leases.len() => {
                    let held = arena.cache.held(&arena.leases[lease]);
                    let room = arena.cache.capacity() - held;
                    let new: Vec<u32> = (0..tokens.min(room) as u32).collect();
                    arena.grow(lease, &new);
                }
                Op::End { lease, discard } if lease < arena.leases.len() => {
                    if discard {
                        let lease = arena.leases.remove(lease);
                        arena.cache.discard(lease);
                    } else {
                        arena.end(lease);
                    }
                }
                Op::Compact { steps } => {
                    let highest = (0..arena.leases.len()).max_by_key(|&i| arena.leases[i].slot());
                    if let Some(highest) = highest
                        && let Some(hole) = arena.cache.compaction(&arena.leases[highest], steps)
                    {
                        let range = arena.cache.range();
                        let mut copies = Vec::new();
                        let mut lease = arena.leases.remove(highest);
                        arena.cache.relocate(&mut lease, hole, &mut copies);
                        arena.carry_out(&copies);
                        arena.leases.push(lease);
                        prop_assert!(arena.cache.range() < range);
                    }
                }
                Op::Grow { .. } | Op::End { .. } => {}
            }
            arena.check();
        }
    }
}
