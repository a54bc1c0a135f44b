//! What models hold of each device's memory, so that one that does not fit is refused
//! before anything of it is loaded.
//!
//! A value: [`super::devices`] asks the driver how large a device is and keeps the
//! ledger under a lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sluice_engine::backend::onnx::Bytes;

/// Names one entry; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryId(u64);

/// One model on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    device: u32,
    name: Arc<str>,
    bytes: u64,
}

/// Who holds how much of which device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<EntryId, Entry>,
    next: u64,
}

/// A model does not fit on a device; spelled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Full {
    /// The device, by CUDA's number of it.
    pub(super) device: u32,
    /// What models may hold of it, in bytes.
    pub(super) limit: u64,
    /// Who holds what, in the order in which they came.
    pub(super) holders: Vec<(Arc<str>, u64)>,
    /// Who is to be added.
    pub(super) name: Arc<str>,
    /// What it needs.
    pub(super) needs: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = Standing {
            device: self.device,
            limit: self.limit,
            holders: &self.holders,
        };
        write!(f, "{standing}; {} needs {}", self.name, Bytes(self.needs))
    }
}

/// How one device stands, in words.
struct Standing<'a> {
    device: u32,
    limit: u64,
    holders: &'a [(Arc<str>, u64)],
}

impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, limit) = (self.device, Bytes(self.limit));
        if self.holders.is_empty() {
            return write!(f, "GPU {device}: nothing of {limit} is held");
        }
        let held = self.holders.iter().map(|(_, bytes)| bytes).sum();
        write!(f, "GPU {device}: {} of {limit} are held by ", Bytes(held))?;
        for (place, (name, bytes)) in self.holders.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name} ({})", Bytes(*bytes))?;
        }
        Ok(())
    }
}

impl Ledger {
    /// Enters `bytes` on each of `devices` under one name, or nothing. A device with its
    /// limit in bytes may stand there more than once.
    ///
    /// # Errors
    /// [`Full`], of the first device where it does not fit.
    pub(super) fn enter(
        &mut self,
        name: &Arc<str>,
        bytes: u64,
        devices: &[(u32, u64)],
    ) -> Result<Vec<EntryId>, Full> {
        let mut entered = Vec::with_capacity(devices.len());
        for &(device, limit) in devices {
            if bytes > self.free(device, limit) {
                let full = Full {
                    device,
                    limit,
                    holders: self.holders(device),
                    name: Arc::clone(name),
                    needs: bytes,
                };
                entered.into_iter().for_each(|id| self.remove(id));
                return Err(full);
            }
            let id = EntryId(self.next);
            self.next += 1;
            let name = Arc::clone(name);
            self.entries.insert(
                id,
                Entry {
                    device,
                    name,
                    bytes,
                },
            );
            entered.push(id);
        }
        Ok(entered)
    }

    /// Takes one entry out.
    pub(super) fn remove(&mut self, id: EntryId) {
        self.entries.remove(&id);
    }

    /// Bytes that are held of a device.
    #[must_use]
    pub(super) fn held(&self, device: u32) -> u64 {
        let on = |entry: &&Entry| entry.device == device;
        let all = self.entries.values().filter(on);
        all.map(|entry| entry.bytes).fold(0, u64::saturating_add)
    }

    /// Bytes that are left of `limit`.
    #[must_use]
    pub(super) fn free(&self, device: u32, limit: u64) -> u64 {
        limit.saturating_sub(self.held(device))
    }

    /// Who holds what of a device, in words.
    #[must_use]
    pub(super) fn describe(&self, device: u32, limit: u64) -> String {
        let holders = self.holders(device);
        let standing = Standing {
            device,
            limit,
            holders: &holders,
        };
        standing.to_string()
    }

    fn holders(&self, device: u32) -> Vec<(Arc<str>, u64)> {
        let on = |entry: &&Entry| entry.device == device;
        let all = self.entries.values().filter(on);
        all.map(|entry| (Arc::clone(&entry.name), entry.bytes))
            .collect()
    }
}

#[cfg(test)]
mod tests;
