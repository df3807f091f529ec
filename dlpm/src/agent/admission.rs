//! Which tenants have a series of their own: decided when a tenant is first seen, and for as long as it lives.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasher,
};

use crate::tenants::{Kind, Node};

/// Refused tenants that are remembered. A tenant that is forgotten may have a series later; the sums stay.
const MOST_REFUSED: usize = 65_536;

/// The cap on the number of tenants.
#[derive(Debug)]
pub struct Admission {
    cap: usize,
    hasher: foldhash::fast::RandomState,
    refused: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Admission {
    /// Of so many tenants at a time.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            hasher: foldhash::fast::RandomState::default(),
            refused: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a tenant that has no series may have one, beside so many others.
    ///
    /// # Errors
    ///
    /// Where it may not: whether this is the first time.
    pub fn admits(&mut self, node: &Node, others: usize) -> Result<(), bool> {
        if node.kind == Kind::Unknown {
            return Err(false);
        }
        let hash = self.hasher.hash_one(node);
        if self.refused.contains(&hash) {
            return Err(false);
        }
        if others < self.cap {
            return Ok(());
        }
        self.refused.insert(hash);
        self.order.push_back(hash);
        if self.order.len() > MOST_REFUSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.refused.remove(&oldest);
        }
        Err(true)
    }

    /// The cap.
    pub fn cap(&self) -> usize {
        self.cap
    }
}
