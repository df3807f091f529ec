//! From what was seen in an interval to who used which energy: pure functions.

pub mod ledger;
