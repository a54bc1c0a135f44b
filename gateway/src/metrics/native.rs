//! Exponential buckets, which Prometheus calls native histograms: at schema `s` each
//! power of two is divided into 2ˢ buckets, so a quantile is off by at most
//! 2^(2⁻ˢ) − 1 of itself (0.55 % at 7) wherever it lies, whatever the objectives.
//!
//! Counts are atomics in one block a power of two, made when a value first falls
//! into it: recording takes no lock, and memory grows with the spread of the values,
//! never with their number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Values up to 2 to this power (0.95 µs) count as zero.
const LOWEST: i32 = -20;
/// Values above 2 to this power (12 days, a million tokens) count as if they were equal to it.
const HIGHEST: i32 = 20;
/// Powers of two between the two.
const OCTAVES: usize = (HIGHEST - LOWEST) as usize;
/// Empty buckets that are cheaper to send than the start of another span.
const GAP: i32 = 2;

/// Breadth of the zero bucket.
pub(super) const ZERO_THRESHOLD: f64 = 1.0 / (1 << -LOWEST) as f64;

/// Where the buckets of a schema lie.
#[derive(Debug)]
pub(super) struct Schema {
    number: u8,
    /// Upper bounds (inclusive) of the buckets from 1 to below 2.
    bounds: Box<[f64]>,
}

impl Schema {
    /// The buckets of Prometheus' schema `number`, 0 to 8.
    pub(super) fn new(number: u8) -> Self {
        let per_octave = 1_u32 << number;
        Self {
            number,
            bounds: (0..per_octave)
                .map(|step| (f64::from(step) / f64::from(per_octave)).exp2())
                .collect(),
        }
    }

    /// Prometheus' name for it.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The bucket of a positive, normal number: `i` where 2^((i−1)/2ˢ) < value ≤ 2^(i/2ˢ).
    fn index(&self, value: f64) -> i32 {
        const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
        let bits = value.to_bits();
        let exponent = (bits >> MANTISSA) as i32 - (f64::MAX_EXP - 1);
        // The same number between 1 and 2.
        let fraction =
            f64::from_bits(bits & ((1 << MANTISSA) - 1) | ((f64::MAX_EXP as u64 - 1) << MANTISSA));
        let step = self.bounds.partition_point(|bound| *bound < fraction);
        (exponent << self.number) + step as i32
    }

    /// The bucket right of the zero bucket.
    fn first(&self) -> i32 {
        (LOWEST << self.number) + 1
    }
}

/// Counts by exponential bucket.
#[derive(Debug)]
pub(super) struct Exponential {
    zero: AtomicU64,
    octaves: [OnceLock<Box<[AtomicU64]>>; OCTAVES],
}

/// What [`Exponential`] held at one moment, as Prometheus wants it sent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// All values.
    pub(super) count: u64,
    /// Of these, in the zero bucket.
    pub(super) zero: u64,
    /// Runs of buckets: distance from the end of the run before, and length.
    pub(super) spans: Vec<(i32, u32)>,
    /// Each bucket's count less that of the one before.
    pub(super) deltas: Vec<i64>,
}

impl Exponential {
    pub(super) fn new() -> Self {
        Self {
            zero: AtomicU64::new(0),
            octaves: [const { OnceLock::new() }; OCTAVES],
        }
    }

    pub(super) fn record(&self, schema: &Schema, value: f64) {
        if value <= ZERO_THRESHOLD {
            self.zero.fetch_add(1, Relaxed);
            return;
        }
        let last = (OCTAVES << schema.number) - 1;
        let place = ((schema.index(value) - schema.first()) as usize).min(last);
        let width = schema.bounds.len();
        let octave = self.octaves[place / width]
            .get_or_init(|| (0..width).map(|_| AtomicU64::new(0)).collect());
        octave[place % width].fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self, schema: &Schema) -> Snapshot {
        let zero = self.zero.load(Relaxed);
        let mut taken = Snapshot {
            count: zero,
            zero,
            ..Snapshot::default()
        };
        let (mut next, mut previous) = (0, 0);
        for (place, count) in self.filled(schema) {
            taken.count += count;
            let index = schema.first() + place as i32;
            let gap = index - next;
            match taken.spans.last_mut() {
                Some((_, length)) if gap <= GAP => {
                    for _ in 0..gap {
                        taken.deltas.push(-previous);
                        previous = 0;
                    }
                    *length += gap as u32 + 1;
                }
                _ => taken.spans.push((gap, 1)),
            }
            taken.deltas.push(count as i64 - previous);
            (next, previous) = (index + 1, count as i64);
        }
        taken
    }

    /// Buckets that hold something, counted from the first.
    fn filled(&self, schema: &Schema) -> impl Iterator<Item = (usize, u64)> {
        let width = schema.bounds.len();
        self.octaves
            .iter()
            .enumerate()
            .filter_map(|(octave, counts)| Some((octave, counts.get()?)))
            .flat_map(move |(octave, counts)| {
                let first = octave * width;
                counts
                    .iter()
                    .enumerate()
                    .map(move |(step, count)| (first + step, count.load(Relaxed)))
            })
            .filter(|(_, count)| *count > 0)
    }
}
