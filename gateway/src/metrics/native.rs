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
    /// Upper bounds (inclusive) of the buckets from 1 to below 2, and 2.
    bounds: Box<[f64]>,
    /// Bounds below each of the 2ˢ⁺¹ equal slices from 1 to 2; none holds two bounds.
    below: Box<[u16]>,
}

impl Schema {
    /// The buckets of Prometheus' schema `number`, 0 to 8.
    pub(super) fn new(number: u8) -> Self {
        let per_octave = 1_u32 << number;
        let bounds: Box<[f64]> = (0..=per_octave)
            .map(|step| (f64::from(step) / f64::from(per_octave)).exp2())
            .collect();
        let slices = 2 * per_octave;
        Self {
            number,
            below: (0..slices)
                .map(|slice| 1.0 + f64::from(slice) / f64::from(slices))
                .map(|start| bounds.partition_point(|bound| *bound < start) as u16)
                .collect(),
            bounds,
        }
    }

    /// Prometheus' name for it.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// All buckets, the zero bucket first.
    pub(super) fn places(&self) -> usize {
        (OCTAVES << self.number) + 1
    }

    /// The place of a value's bucket among all; 0 is the zero bucket.
    pub(super) fn place(&self, value: f64) -> usize {
        if value <= ZERO_THRESHOLD {
            return 0;
        }
        let place = self.index(value) - (LOWEST << self.number);
        (place as usize).min(OCTAVES << self.number)
    }

    /// The bucket of a positive, normal number: `i` where 2^((i−1)/2ˢ) < value ≤ 2^(i/2ˢ).
    fn index(&self, value: f64) -> i32 {
        const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
        let bits = value.to_bits();
        let exponent = (bits >> MANTISSA) as i32 - (f64::MAX_EXP - 1);
        let mantissa = bits & ((1 << MANTISSA) - 1);
        // The same number between 1 and 2.
        let fraction = f64::from_bits(mantissa | ((f64::MAX_EXP as u64 - 1) << MANTISSA));
        let slice = mantissa >> (MANTISSA - u32::from(self.number) - 1);
        let below = usize::from(self.below[slice as usize]);
        let step = below + usize::from(self.bounds[below] < fraction);
        (exponent << self.number) + step as i32
    }
}

/// Counts by exponential bucket.
#[derive(Debug)]
pub(super) struct Exponential {
    zero: AtomicU64,
    octaves: [OnceLock<Box<[AtomicU64]>>; OCTAVES],
}

/// What [`Exponential`] held, as Prometheus wants it sent.
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

    /// Counts a value whose place is known.
    #[inline]
    pub(super) fn add(&self, schema: &Schema, place: usize) {
        let Some(place) = place.checked_sub(1) else {
            self.zero.fetch_add(1, Relaxed);
            return;
        };
        let octave = &self.octaves[place >> schema.number];
        let within = place & ((1 << schema.number) - 1);
        match octave.get() {
            Some(counts) => counts[within].fetch_add(1, Relaxed),
            None => first(octave, schema)[within].fetch_add(1, Relaxed),
        };
    }

    /// Each place that holds something, with its count, ascending.
    pub(super) fn counts(&self, schema: &Schema) -> Vec<(usize, u64)> {
        let number = schema.number;
        let octaves = self
            .octaves
            .iter()
            .enumerate()
            .filter_map(|(octave, counts)| Some((1 + (octave << number), counts.get()?)));
        let cells = octaves.flat_map(|(first, counts)| (first..).zip(counts));
        [(0, &self.zero)]
            .into_iter()
            .chain(cells)
            .map(|(place, count)| (place, count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Makes an octave's counts. Apart and never inlined: with it in line, every record would save
/// the registers that only this needs.
#[cold]
#[inline(never)]
fn first<'a>(octave: &'a OnceLock<Box<[AtomicU64]>>, schema: &Schema) -> &'a [AtomicU64] {
    octave.get_or_init(|| (0..1 << schema.number).map(|_| AtomicU64::new(0)).collect())
}

impl Snapshot {
    /// Lays out what [`Exponential::counts`] gave.
    pub(super) fn new(schema: &Schema, counts: &[(usize, u64)]) -> Self {
        let mut taken = Self::default();
        let (mut next, mut previous) = (0, 0);
        for (place, count) in counts {
            taken.count += count;
            if *place == 0 {
                taken.zero = *count;
                continue;
            }
            let index = *place as i32 + (LOWEST << schema.number);
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
            taken.deltas.push(*count as i64 - previous);
            (next, previous) = (index + 1, *count as i64);
        }
        taken
    }
}
