//! Which connections are open. A newcomer is always let in: when there are too many, another one goes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::watched::Activity;

/// Connections, from all addresses together.
const MOST: usize = 128;

/// Connections from one client.
const MOST_OF_ONE: usize = 32;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    client: IpAddr,
    activity: Arc<Activity>,
}

/// The place of one connection; dropped, it is free.
#[derive(Debug)]
pub(super) struct Slot {
    table: Arc<Mutex<Table>>,
    id: u64,
    client: IpAddr,
    activity: Arc<Activity>,
}

impl Slot {
    /// Who is on the other side.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.table).open.remove(&self.id);
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// Lets a connection in, in the place of another one if need be: one of the same client if that has too many, else
    /// one of the client that has most.
    pub(super) fn admit(&self, address: IpAddr) -> Slot {
        let client = client(address);
        let mut table = lock(&self.table);
        if table.of(client) >= MOST_OF_ONE {
            table.evict(client);
        } else if table.open.len() >= MOST
            && let Some(greedy) = table.greedy()
        {
            table.evict(greedy);
        }
        let id = table.next;
        table.next += 1;
        let activity = Arc::new(Activity::new(Instant::now()));
        let open = Open {
            client,
            activity: Arc::clone(&activity),
        };
        table.open.insert(id, open);
        drop(table);
        Slot {
            table: Arc::clone(&self.table),
            id,
            client,
            activity,
        }
    }
}

impl Table {
    fn of(&self, client: IpAddr) -> usize {
        self.open.values().filter(|open| open.client == client).count()
    }

    /// The client with the most connections.
    fn greedy(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for open in self.open.values() {
            *counts.entry(open.client).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(client, _)| client)
    }

    fn evict(&mut self, client: IpAddr) {
        let of_client = self.open.iter().filter(|(_, open)| open.client == client);
        let first = of_client
            .min_by_key(|(_, open)| open.activity.rank())
            .map(|(id, _)| *id);
        if let Some(open) = first.and_then(|id| self.open.remove(&id)) {
            open.activity.evict();
        }
    }
}

/// What counts as one client: all of loopback, since any user of this machine can choose among its addresses; and the
/// network of an address of IPv6 (RFC 4291 leaves the lower 64 bits to the host).
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_in(connections: &Connections, slot: &Slot) -> bool {
        lock(&connections.table).open.contains_key(&slot.id)
    }

    #[test]
    fn clients_are_told_apart_where_they_cannot_choose() {
        for (one, other) in [
            ("127.0.0.1", "127.8.9.10"),
            ("127.0.0.1", "::1"),
            ("127.0.0.1", "::ffff:127.0.0.2"),
            ("2001:db8::1", "2001:db8::2:0:0:1"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
        ] {
            assert_eq!(client(ip(one)), client(ip(other)), "{one} {other}");
        }
        for (one, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")] {
            assert_ne!(client(ip(one)), client(ip(other)), "{one} {other}");
        }
    }

    #[test]
    fn one_client_takes_no_place_of_another() {
        let connections = Connections::default();
        let quiet = connections.admit(ip("192.0.2.1"));
        let flood: Vec<Slot> = (0..1_000).map(|_| connections.admit(ip("192.0.2.2"))).collect();
        assert!(is_in(&connections, &quiet));
        let left = flood.iter().filter(|slot| is_in(&connections, slot)).count();
        assert_eq!(left, MOST_OF_ONE);
        assert!(is_in(&connections, flood.last().unwrap()), "the newest one");
    }

    #[test]
    fn many_clients_keep_to_the_total_and_the_answered_one_stays() {
        let connections = Connections::default();
        let answered = connections.admit(ip("10.0.0.1"));
        answered.activity.asked(Instant::now());
        let mut slots = Vec::new();
        for number in 0..1_000_u32 {
            let address = Ipv4Addr::from_bits(0xC000_0200 + number / 20);
            slots.push(connections.admit(address.into()));
            assert!(lock(&connections.table).open.len() <= MOST);
        }
        assert!(is_in(&connections, &answered));
        drop(slots);
        assert_eq!(lock(&connections.table).open.len(), 1);
    }

    #[test]
    fn of_one_client_the_idle_connection_goes_before_the_answered_one() {
        let connections = Connections::default();
        let slots: Vec<Slot> = (0..MOST_OF_ONE).map(|_| connections.admit(ip("::1"))).collect();
        for slot in slots.iter().filter(|slot| slot.id != 7) {
            slot.activity.asked(Instant::now());
        }
        let newcomer = connections.admit(ip("127.0.0.1"));
        let out: Vec<u64> = slots
            .iter()
            .filter(|slot| !is_in(&connections, slot))
            .map(|slot| slot.id)
            .collect();
        assert_eq!(out, [7]);
        assert!(is_in(&connections, &newcomer));
    }
}
