//! Requests with both of their fates: what stable would make of them, and what the candidate would.
//!
//! Knowing both is what a simulation has over production: it can say which of the candidate's failures were its own.

use std::f64::consts::TAU;
use std::time::Duration;

use rand_core::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::traffic::{Lands, Spread, Traffic};
use crate::release::analysis::{Class, Facts, Share, Unit};

/// The 99th percentile of the standard normal distribution.
const Z99: f64 = 2.326_347_874;

/// One request of recorded traffic: a line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Since the first.
    pub at_ms: u64,
    /// Whose it was; absent if nobody knows.
    #[serde(default)]
    pub unit: Option<String>,
    #[serde(default)]
    pub error: bool,
    #[serde(default)]
    pub empty: bool,
    #[serde(default)]
    pub refusal: bool,
    #[serde(default)]
    pub ttft_ms: Option<u64>,
    pub total_ms: u64,
    #[serde(default)]
    pub output_tokens: Option<u32>,
}

/// A request that arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Since the release began.
    pub at: Duration,
    pub unit: Unit,
    /// Where its unit is in the split: on the candidate while the share is above it.
    pub place: u32,
    /// Who is hurt if it is: a number per user.
    pub user: u64,
    pub stable: Facts,
    pub candidate: Facts,
    /// Whether the two answers agree.
    pub agrees: bool,
}

/// The requests of one simulated release.
pub(super) struct Source<'a> {
    traffic: &'a Traffic,
    recorded: &'a [Recorded],
    next_recorded: usize,
    random: Random,
    salt: u64,
    now: f64,
    /// Where in their periods the day, the bursts and the incidents begin.
    phases: [f64; 3],
    /// When each noisy client sends its next.
    noisy: Vec<f64>,
    next: f64,
}

pub(super) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// From 0 up to but not including 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.unit()).ln() / rate
    }

    /// Two independent standard normal numbers (Box & Muller).
    fn normals(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (TAU * self.unit()).sin_cos();
        (radius * sin, radius * cos)
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(traffic: &'a Traffic, recorded: &'a [Recorded], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let salt = random.0.next_u64();
        let phases = std::array::from_fn(|_| random.unit());
        let noisy = traffic
            .noisy
            .iter()
            .map(|it| random.exponential(it.rate))
            .collect();
        let mut source = Self {
            traffic,
            recorded,
            next_recorded: 0,
            random,
            salt,
            now: 0.0,
            phases,
            noisy,
            next: 0.0,
        };
        source.next = source.random.exponential(source.rate());
        source
    }

    /// Requests a second at this moment; between two requests it is taken as constant.
    fn rate(&self) -> f64 {
        let traffic = self.traffic;
        let mut rate = traffic.rate;
        if let Some(diurnal) = &traffic.diurnal {
            let turn = self.now / diurnal.period.as_secs_f64() + self.phases[0];
            rate *= 1.0 + diurnal.swing * (TAU * turn).sin();
        }
        if let Some(bursts) = &traffic.bursts
            && self.within(bursts.every, bursts.last, self.phases[1])
        {
            rate *= bursts.times;
        }
        rate.max(1e-3)
    }

    fn within(&self, every: Duration, last: Duration, phase: f64) -> bool {
        let every = every.as_secs_f64();
        (self.now + phase * every) % every < last.as_secs_f64()
    }

    /// The next request; `None` when recorded ones have run out.
    pub(super) fn next(&mut self) -> Option<Arrival> {
        if !self.recorded.is_empty() {
            return self.next_recorded();
        }
        let first_noisy =
            (0..self.noisy.len()).min_by(|a, b| self.noisy[*a].total_cmp(&self.noisy[*b]));
        if let Some(index) = first_noisy.filter(|index| self.noisy[*index] < self.next) {
            return Some(self.next_noisy(index));
        }
        self.now = self.next;
        self.next += self.random.exponential(self.rate());
        let user = self.pick_user();
        let stable = self.on_stable(1.0, 0.0);
        Some(self.arrival(user, self.traffic.sticky, None, stable))
    }

    fn next_noisy(&mut self, index: usize) -> Arrival {
        let noisy = &self.traffic.noisy[index];
        self.now = self.noisy[index];
        self.noisy[index] += self.random.exponential(noisy.rate);
        let stable = self.on_stable(noisy.slower, noisy.error);
        let place = match noisy.on {
            Lands::Candidate => 0,
            Lands::Stable => Share::ALL.parts() - 1,
        };
        // Beyond the numbers of ordinary users.
        self.arrival(
            u64::from(u32::MAX) + index as u64,
            true,
            Some(place),
            stable,
        )
    }

    fn next_recorded(&mut self) -> Option<Arrival> {
        let recorded = self.recorded.get(self.next_recorded)?;
        self.next_recorded += 1;
        #[expect(clippy::cast_precision_loss, reason = "years of milliseconds fit")]
        let seconds = recorded.at_ms as f64 / 1_000.0;
        self.now = seconds;
        let stable = Facts {
            class: if recorded.error {
                Class::Fault
            } else {
                Class::Ok
            },
            ttft: recorded.ttft_ms.map(Duration::from_millis),
            output_tokens: recorded.output_tokens,
            empty: recorded.empty,
            refusal: recorded.refusal,
            ..Facts::ok(Duration::from_millis(recorded.total_ms))
        };
        let (user, sticky) = match &recorded.unit {
            Some(unit) => (fnv(unit.as_bytes()), true),
            None => (self.next_recorded as u64, false),
        };
        Some(self.arrival(user, sticky, None, stable))
    }

    fn pick_user(&mut self) -> u64 {
        let position = self.random.unit().powf(1.0 + self.traffic.skew);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the number of users"
        )]
        let user = (position * f64::from(self.traffic.users)) as u64;
        user
    }

    fn on_stable(&mut self, slower: f64, error: f64) -> Facts {
        let profile = &self.traffic.stable;
        let (mut slower, mut error) = (slower, profile.error.max(error));
        if let Some(incidents) = &self.traffic.incidents
            && self.within(incidents.every, incidents.last, self.phases[2])
        {
            slower *= incidents.slower;
            error = error.max(incidents.error);
        }
        let (first, rest) = self.random.normals();
        let ttft = log_normal(&profile.ttft, first).mul_f64(slower);
        let fails = self.random.chance(error);
        Facts {
            class: if fails { Class::Fault } else { Class::Ok },
            ttft: (!fails).then_some(ttft),
            empty: self.random.chance(profile.empty),
            refusal: self.random.chance(profile.refusal),
            // An error is as fast as a first token.
            ..Facts::ok(if fails {
                ttft
            } else {
                ttft.max(log_normal(&profile.total, rest).mul_f64(slower))
            })
        }
    }

    fn arrival(&mut self, user: u64, sticky: bool, place: Option<u32>, stable: Facts) -> Arrival {
        let hash = mix(self.salt ^ user);
        let unit = if sticky {
            Unit::Sticky(hash)
        } else {
            Unit::Single
        };
        let drawn = if sticky {
            hash
        } else {
            self.random.0.next_u64()
        };
        let place = place.unwrap_or_else(|| {
            let parts = u64::from(Share::ALL.parts());
            u32::try_from(mix(drawn) % parts).unwrap_or(0)
        });
        let candidate = self.on_candidate(stable);
        let disagree = self.traffic.stable.disagree + self.traffic.candidate.disagree;
        let agrees = !self.random.chance(disagree.min(1.0));
        Arrival {
            at: Duration::from_secs_f64(self.now),
            unit,
            place,
            user,
            stable,
            candidate,
            agrees,
        }
    }

    fn on_candidate(&mut self, stable: Facts) -> Facts {
        let change = &self.traffic.candidate;
        let answered = stable.class == Class::Ok;
        let breaks = answered && self.random.chance(change.error);
        let ttft = stable.ttft.map(|it| it.mul_f64(change.slower));
        let total = stable.total.mul_f64(change.slower);
        Facts {
            class: if breaks { Class::Fault } else { stable.class },
            // The gateway tries what failed before its first token once more on stable.
            stable_answered: (breaks || !answered).then_some(answered),
            ttft: ttft.filter(|_| !breaks),
            total: if breaks { ttft.unwrap_or(total) } else { total },
            empty: stable.empty || self.random.chance(change.empty),
            refusal: stable.refusal || self.random.chance(change.refusal),
            ..stable
        }
    }
}

fn log_normal(spread: &Spread, z: f64) -> Duration {
    let sigma = (spread.p99.as_secs_f64() / spread.p50.as_secs_f64()).ln() / Z99;
    // Beyond six sigma the tail of a made-up distribution says nothing.
    spread.p50.mul_f64((sigma * z.clamp(-6.0, 6.0)).exp())
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
pub(super) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a: names to numbers, the same on every machine.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
