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
    pub key: u64,
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
    /// From when to when each side stops next.
    stops: [(f64, f64); 2],
    /// What agents are still to send: when, by whom, and whether the candidate breaks it; the next last.
    agents: Vec<(f64, u64, bool)>,
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
            stops: [(0.0, 0.0); 2],
            agents: Vec::new(),
        };
        if traffic.pauses.is_some() {
            source.stops = std::array::from_fn(|_| source.next_stop(0.0));
        }
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
        if self.agents.last().is_some_and(|it| it.0 < self.next) {
            return self.next_of_agent();
        }
        self.now = self.next;
        self.next += self.random.exponential(self.rate());
        let user = self.pick_user();
        if self.traffic.agents.is_some() {
            self.begin_agent(user);
        }
        let stable = self.on_stable(1.0, 0.0);
        // Of an agent's requests the first is never the broken one.
        let breaks = self.traffic.agents.as_ref().map(|_| false);
        Some(self.arrival(user, (self.traffic.sticky, 0), None, stable, breaks))
    }

    /// Lines up what an agent sends after its first request.
    fn begin_agent(&mut self, user: u64) {
        let Some(agents) = &self.traffic.agents else {
            return;
        };
        let more = agents.requests - 1;
        let within = agents.within.as_secs_f64();
        let breaks = self.random.chance(self.traffic.candidate.error);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below the number of requests"
        )]
        let broken = (self.random.unit() * f64::from(more)) as u32;
        for index in 0..more {
            let at = self.now + within * f64::from(index + 1) / f64::from(more);
            self.agents.push((at, user, breaks && index == broken));
        }
        self.agents.sort_by(|a, b| b.0.total_cmp(&a.0));
    }

    fn next_of_agent(&mut self) -> Option<Arrival> {
        let (at, user, breaks) = self.agents.pop()?;
        self.now = at;
        let stable = self.on_stable(1.0, 0.0);
        Some(self.arrival(user, (self.traffic.sticky, 0), None, stable, Some(breaks)))
    }

    fn next_stop(&mut self, after: f64) -> (f64, f64) {
        let Some(stops) = &self.traffic.pauses else {
            return (f64::INFINITY, f64::INFINITY);
        };
        let from = after + self.random.exponential(1.0 / stops.every.as_secs_f64());
        let (shortest, longest) = (stops.shortest.as_secs_f64(), stops.longest.as_secs_f64());
        (
            from,
            from + shortest + self.random.unit() * (longest - shortest),
        )
    }

    /// Whether a request that arrives now meets a pause: of stable, of the candidate.
    fn stopped(&mut self) -> [bool; 2] {
        let Some(error) = self.traffic.pauses.as_ref().map(|it| it.error) else {
            return [false; 2];
        };
        std::array::from_fn(|side| {
            while self.now >= self.stops[side].1 {
                self.stops[side] = self.next_stop(self.stops[side].1);
            }
            self.now >= self.stops[side].0 && (error >= 1.0 || self.random.chance(error))
        })
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
        let name = u64::from(u32::MAX) + index as u64;
        let user = if noisy.sessions {
            self.random.0.next_u64() | 1 << 63
        } else {
            name
        };
        self.arrival(user, (true, name), Some(place), stable, None)
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
        Some(self.arrival(user, (sticky, 0), None, stable, None))
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

    /// `key` 0 is one of the traffic's own. `breaks` says whether the candidate breaks it where that is settled.
    fn arrival(
        &mut self,
        user: u64,
        (sticky, key): (bool, u64),
        place: Option<u32>,
        stable: Facts,
        breaks: Option<bool>,
    ) -> Arrival {
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
        let [stable_stops, candidate_stops] = self.stopped();
        let key = if key == 0 { self.key_of(user) } else { key };
        let stable = if stable_stops { failed(stable) } else { stable };
        let candidate = self.on_candidate(stable, breaks);
        let candidate = match (stable_stops, candidate_stops) {
            (false, false) => candidate,
            (_, true) => Facts {
                stable_answered: Some(stable.class == Class::Ok),
                ..failed(candidate)
            },
            // Its own pause is not shared.
            (true, false) => Facts::ok(candidate.total),
        };
        let disagree = self.traffic.stable.disagree + self.traffic.candidate.disagree;
        let agrees = !self.random.chance(disagree.min(1.0));
        Arrival {
            at: Duration::from_secs_f64(self.now),
            unit,
            key,
            place,
            user,
            stable,
            candidate,
            agrees,
        }
    }

    fn key_of(&self, user: u64) -> u64 {
        let keys = &self.traffic.keys;
        if keys.is_empty() {
            return 0;
        }
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let mut place = (mix(self.salt.rotate_left(17) ^ user) >> 11) as f64
            * (1.0 / (1_u64 << 53) as f64)
            * keys.iter().sum::<f64>();
        let found = keys.iter().position(|share| {
            place -= share;
            place < 0.0
        });
        found.unwrap_or(0) as u64 + 1
    }

    fn on_candidate(&mut self, stable: Facts, breaks: Option<bool>) -> Facts {
        let change = &self.traffic.candidate;
        let answered = stable.class == Class::Ok;
        let breaks = answered
            && match breaks {
                Some(breaks) => breaks,
                None => self.random.chance(change.error),
            };
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

/// Refused at once.
fn failed(facts: Facts) -> Facts {
    Facts {
        class: Class::Fault,
        ttft: None,
        ..Facts::ok(facts.total.min(Duration::from_millis(5)))
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
