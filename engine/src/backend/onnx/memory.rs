//! How much memory a model may take, and how many slots of which length fit.

use std::path::Path;

/// Share of the available memory that one model takes at most by default.
const DEFAULT_SHARE: f64 = 0.6;
/// Slots tried first when none are asked for.
const DEFAULT_SLOTS: u32 = 16;
/// Longest slot chosen without being asked for.
const DEFAULT_CAPACITY: u32 = 8192;
/// Slots are given up before length until only this many are left.
const FEW_SLOTS: u32 = 4;
/// Length is halved down to this before the last slots go.
const SHORT: u32 = 1024;

/// What one model asks of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// Bytes of the weights.
    pub(super) weights: u64,
    /// Bytes of K/V for one token in one slot, all layers.
    pub(super) token: u64,
    /// Tokens beyond which the model cannot go.
    pub(super) longest: u32,
    /// As configured.
    pub(super) slots: Option<u32>,
    /// As configured.
    pub(super) capacity: Option<u32>,
}

/// Slots and tokens per slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) slots: u32,
    pub(super) capacity: u32,
}

impl Demand {
    /// Bytes of the K/V arena.
    pub(super) fn kv(&self, size: Size) -> u64 {
        self.token
            .saturating_mul(u64::from(size.slots))
            .saturating_mul(u64::from(size.capacity))
    }

    /// Chooses what is not configured: 16 slots of the model's whole context (at
    /// most 8192 tokens). If that exceeds `budget` bytes, slots go down to 4, then
    /// the length is halved down to 1024, then slots go down to 1.
    ///
    /// # Errors
    /// The addition, when even the least does not fit.
    pub(super) fn fit(&self, budget: u64) -> Result<Size, String> {
        let mut size = Size {
            slots: self.slots.unwrap_or(DEFAULT_SLOTS),
            capacity: self.capacity.unwrap_or(self.longest.min(DEFAULT_CAPACITY)),
        };
        let fits = |size: Size| self.weights.saturating_add(self.kv(size)) <= budget;
        let shrink = |slots: u32, least: u32| self.slots.is_none() && slots > least;
        while !fits(size) {
            if shrink(size.slots, FEW_SLOTS) {
                size.slots = (size.slots / 2).max(FEW_SLOTS);
            } else if self.capacity.is_none() && size.capacity > SHORT {
                size.capacity = (size.capacity / 2).max(SHORT);
            } else if shrink(size.slots, 1) {
                size.slots /= 2;
            } else {
                return Err(format!("{} > budget {}", self.sum(size), Bytes(budget)));
            }
        }
        Ok(size)
    }

    /// The addition, spelled out.
    pub(super) fn sum(&self, size: Size) -> String {
        let kv = self.kv(size);
        format!(
            "weights {} + K/V {} slots × {} tokens × {} = {}",
            Bytes(self.weights),
            size.slots,
            size.capacity,
            Bytes(self.token),
            Bytes(self.weights.saturating_add(kv))
        )
    }
}

/// Bytes for people, in binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl std::fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) => write!(f, "{:.1} {unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// The default budget: a share of what the host or the control group has left;
/// unlimited where neither can be read.
#[must_use]
pub fn default_budget() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let host = read("/proc/meminfo").and_then(|text| meminfo_available(&text));
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let group = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ]
    .into_iter()
    .find_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used).unwrap_or(0))));
    let available = [host, group].into_iter().flatten().min();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a byte count"
    )]
    available.map_or(u64::MAX, |bytes| (bytes as f64 * DEFAULT_SHARE) as u64)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn meminfo_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn demand() -> Demand {
        Demand {
            weights: 1 << 30,
            token: 1 << 14,
            longest: 1 << 17,
            slots: None,
            capacity: None,
        }
    }

    #[test]
    fn the_default_is_shrunk_in_the_documented_order() {
        // Weights 1 GiB; a token takes 16 KiB, so 65,536 tokens take 1 GiB.
        let fit = |gib: u64| demand().fit(gib << 30).unwrap();
        assert_eq!(
            fit(3),
            Size {
                slots: 16,
                capacity: 8192
            }
        );
        assert_eq!(
            fit(2),
            Size {
                slots: 8,
                capacity: 8192
            }
        );
        let fit = |mib: u64| demand().fit((1 << 30) + (mib << 20)).unwrap();
        assert_eq!(
            fit(512),
            Size {
                slots: 4,
                capacity: 8192
            }
        );
        assert_eq!(
            fit(64),
            Size {
                slots: 4,
                capacity: 1024
            }
        );
        assert_eq!(
            fit(16),
            Size {
                slots: 1,
                capacity: 1024
            }
        );
    }

    #[test]
    fn a_configured_number_is_never_changed() {
        let configured = Demand {
            slots: Some(3),
            capacity: Some(100),
            ..demand()
        };
        assert_eq!(
            configured.fit(2 << 30).unwrap(),
            Size {
                slots: 3,
                capacity: 100
            }
        );
        let sum = Demand {
            slots: Some(64),
            capacity: Some(8192),
            ..demand()
        }
        .fit(2 << 30)
        .unwrap_err();
        assert_eq!(
            sum,
            "weights 1.0 GiB + K/V 64 slots × 8192 tokens × 16.0 KiB = 9.0 GiB > budget 2.0 GiB"
        );
    }

    #[test]
    fn weights_alone_may_be_too_much() {
        let sum = demand().fit(1 << 30).unwrap_err();
        assert!(
            sum.starts_with("weights 1.0 GiB + K/V 1 slots × 1024 tokens"),
            "{sum}"
        );
    }

    #[test]
    fn meminfo_is_read_in_kib() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(meminfo_available(text), Some(42 * 1024));
        assert_eq!(meminfo_available("MemAvailable: many"), None);
        assert!(default_budget() > 0);
    }
}
