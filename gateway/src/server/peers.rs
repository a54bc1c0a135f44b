//! How many connections one address has open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections by address; entries go with their last connection.
#[derive(Debug)]
pub(super) struct Peers {
    /// 0 is any number.
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    peers: Arc<Peers>,
}

impl Peers {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::default(),
        })
    }

    /// Counts one more, if that is not too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = address.to_canonical();
        let mut all = self.open.lock();
        let open = all.entry(address).or_default();
        if self.most > 0 && *open >= self.most {
            return None;
        }
        *open += 1;
        Some(Peer {
            address,
            peers: Arc::clone(self),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut all = self.peers.open.lock();
        if let Some(open) = all.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_whatever_it_is_written_as() {
        let peers = Peers::new(2);
        let one = IpAddr::from([10, 0, 0, 1]);
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
        let first = peers.enter(one);
        let _second = peers.enter(mapped);
        assert!(peers.enter(one).is_none());
        assert!(peers.enter(IpAddr::from([10, 0, 0, 2])).is_some());
        drop(first);
        assert!(peers.enter(one).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let peers = Peers::new(0);
        let open: Vec<_> = (0..50).map(|_| peers.enter([10, 0, 0, 1].into())).collect();
        assert!(open.iter().all(Option::is_some));
        drop(open);
        assert!(peers.open.lock().is_empty());
    }
}
