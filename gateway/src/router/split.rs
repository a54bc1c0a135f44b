//! Which requests go to a release's candidate. Pure.
//!
//! What is divided are *units* (a session, a user, a key), so that whoever was with the
//! candidate once stays with it. A keyed hash that is the same on every node and in every
//! build gives a unit its place on a line of a million; it is with the candidate as long
//! as its place is below the weight. So raising the weight only ever adds units, lowering
//! it takes the last ones back first, and nothing else moves a unit.

use std::hash::Hasher as _;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;

use crate::context::Principal;

#[cfg(test)]
mod tests;

/// Places on the line that units lie on.
const PLACES: u32 = 1_000_000;

/// A share of the units, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Weight(u32);

impl Weight {
    /// No unit.
    pub const NONE: Self = Self(0);
    /// All units.
    pub const ALL: Self = Self(PLACES);

    /// So many percent, rounded to millionths of the whole.
    ///
    /// # Errors
    /// Not a number from 0 to 100.
    pub fn percent(percent: f64) -> Result<Self, SplitError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(SplitError::Weight(percent));
        }
        Ok(Self((percent * f64::from(PLACES / 100)).round() as u32))
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(PLACES)
    }

    /// Whether a unit of this hash is among the share.
    fn holds(self, unit: u64) -> bool {
        // The high half of the product spreads the hash evenly over 0..PLACES.
        let place = (u128::from(unit) * u128::from(PLACES)) >> 64;
        place < u128::from(self.0)
    }
}

/// What tells units apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyKey {
    /// The value of a request header.
    Header(HeaderName),
    /// `user` of the request's body.
    User,
    /// The API key.
    ApiKey,
}

impl FromStr for StickyKey {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        match text {
            "user" => Ok(Self::User),
            "api_key" => Ok(Self::ApiKey),
            name => HeaderName::from_str(name)
                .map(Self::Header)
                .map_err(|_| SplitError::Sticky(name.to_owned())),
        }
    }
}

/// Requests that go to the candidate whatever the weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cohort {
    /// Those with all of these headers and values.
    Headers(Box<[(HeaderName, HeaderValue)]>),
    /// Those of these principals: by the key's name, or by the id of the principal or
    /// its department.
    Principals(Box<[Box<str>]>),
}

impl Cohort {
    /// The cohort of requests that have all of these headers.
    ///
    /// # Errors
    /// No header can have such a name or value.
    pub fn headers<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SplitError> {
        let header = |(name, value): (&str, &str)| {
            let bad = || SplitError::Cohort(format!("{name}: {value}"));
            let header = HeaderName::from_str(name).map_err(|_| bad())?;
            Ok((header, HeaderValue::from_str(value).map_err(|_| bad())?))
        };
        let headers: Result<_, SplitError> = headers.into_iter().map(header).collect();
        Ok(Self::Headers(headers?))
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Headers(wanted) => wanted.iter().all(|(name, value)| {
                let mut given = subject.headers.get_all(name).iter();
                given.any(|given| given == value)
            }),
            Self::Principals(names) => subject.principal.is_some_and(|principal| {
                let owner = principal.owner.as_deref();
                names.iter().any(|name| {
                    **name == *principal.name
                        || owner.is_some_and(|owner| {
                            *name == owner.principal || *name == owner.department
                        })
                })
            }),
        }
    }
}

/// A split cannot be what was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// The share is out of range.
    #[error("a weight is a number of percent from 0 to 100, not {0}")]
    Weight(f64),
    /// Nothing that a request has.
    #[error("`{0}` is no sticky key: write `user`, `api_key` or the name of a request header")]
    Sticky(String),
    /// Nothing that a header can be.
    #[error("`{0}` is no header and value: the first takes letters, digits and dashes")]
    Cohort(String),
}

/// What a split is made of.
#[derive(Debug, Clone, Default)]
pub struct SplitConfig {
    /// Another salt gives other units to the candidate first.
    pub salt: String,
    /// Share of the units that the candidate answers.
    pub weight: Weight,
    /// Share of the units whose requests to stable are copied to the candidate.
    pub shadow: Weight,
    /// Who goes to the candidate anyway.
    pub cohorts: Vec<Cohort>,
    /// What tells units apart; of several that a request has the first counts. A request
    /// that has none is a unit of its own.
    pub sticky: Vec<StickyKey>,
}

/// A division of the traffic between two revisions.
#[derive(Debug, Clone)]
pub struct Split {
    key: [u64; 2],
    weight: Weight,
    shadow: Weight,
    cohorts: Arc<[Cohort]>,
    sticky: Arc<[StickyKey]>,
}

/// What a split looks at in a request.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// `user` of its body.
    pub user: Option<&'a str>,
    /// Whose key it came with.
    pub principal: Option<&'a Principal>,
}

/// One of the two revisions of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that is to be replaced.
    Stable,
    /// The one that may replace it.
    Candidate,
}

/// Why a request is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignment {
    /// By its unit's place: as good as drawn by lot, so the sides can be compared.
    Random,
    /// It is of a cohort.
    Cohort,
    /// It named the revision.
    Named,
}

/// Where a request goes, and on what terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Hash of the unit.
    pub unit: u64,
    /// Who answers.
    pub side: Side,
    /// Why.
    pub assignment: Assignment,
    /// The candidate's share at this moment.
    pub weight: Weight,
    /// A copy goes to the candidate.
    pub shadow: bool,
}

impl Split {
    /// The split that a configuration describes.
    #[must_use]
    pub fn new(config: SplitConfig) -> Self {
        let digest = Sha256::digest(config.salt.as_bytes());
        let word = |at: usize| {
            let bytes = digest[at..at + 8].iter();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        Self {
            key: [word(0), word(8)],
            weight: config.weight,
            shadow: config.shadow,
            cohorts: config.cohorts.into(),
            sticky: config.sticky.into(),
        }
    }

    /// The same with other shares.
    #[must_use]
    pub fn with(&self, weight: Weight, shadow: Weight) -> Self {
        Self {
            weight,
            shadow,
            ..self.clone()
        }
    }

    /// The candidate's share.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// The share whose requests are copied.
    #[must_use]
    pub fn shadow(&self) -> Weight {
        self.shadow
    }

    /// Where a request goes. O(cohorts + sticky keys), no allocation, no lock.
    #[must_use]
    pub fn pick(&self, subject: &Subject<'_>) -> Pick {
        let unit = self.unit(subject);
        let in_cohort = self.cohorts.iter().any(|cohort| cohort.holds(subject));
        let side = if in_cohort || self.weight.holds(unit) {
            Side::Candidate
        } else {
            Side::Stable
        };
        Pick {
            unit,
            side,
            assignment: match in_cohort {
                true => Assignment::Cohort,
                false => Assignment::Random,
            },
            weight: self.weight,
            shadow: side == Side::Stable && self.shadow.holds(other_place(unit)),
        }
    }

    /// The same for a request that named the revision.
    #[must_use]
    pub fn named(&self, subject: &Subject<'_>, side: Side) -> Pick {
        Pick {
            unit: self.unit(subject),
            side,
            assignment: Assignment::Named,
            weight: self.weight,
            shadow: false,
        }
    }

    fn unit(&self, subject: &Subject<'_>) -> u64 {
        let found = self.sticky.iter().find_map(|key| {
            let (kind, value): (&str, &[u8]) = match key {
                StickyKey::Header(name) => (name.as_str(), subject.headers.get(name)?.as_bytes()),
                StickyKey::User => ("", subject.user?.as_bytes()),
                StickyKey::ApiKey => (":", subject.principal?.key_id.as_bytes()),
            };
            (!value.is_empty()).then(|| self.hash(kind, value))
        });
        found.unwrap_or_else(rand::random)
    }

    /// Hash of an API key's id; never 0.
    #[must_use]
    pub fn key_hash(&self, key_id: &str) -> u64 {
        self.hash(":", key_id.as_bytes()).max(1)
    }

    /// SipHash-1-3 (Aumasson, Bernstein 2012): a client that does not know the salt cannot
    /// look for an id that is put where it would like to be.
    fn hash(&self, kind: &str, value: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(kind.as_bytes());
        // A byte that no header's name holds: ends the first part.
        hasher.write(&[0]);
        hasher.write(value);
        hasher.finish()
    }
}

/// Another place for the same unit, so that who is copied does not depend on who will
/// be moved first: the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn other_place(unit: u64) -> u64 {
    let mut z = unit.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
