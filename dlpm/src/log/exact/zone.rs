//! Zones of a line: roots, and the leaves that are split.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::parts::Text;
use crate::{
    attribution::{
        counters::Model,
        energy_tree::WHOLE,
        ledger::{LeafZone, Ledger, Method, RootZone},
    },
    interval::{MeterSource, ZoneKind},
};

/// The kind of a leaf that is what remains of its root.
const REST: &str = "rest";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Root,
    Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Invalid,
}

/// A zone.
#[derive(Debug, Serialize, Deserialize)]
pub struct ZoneEntry<'a> {
    #[serde(borrow)]
    zone: Text<'a>,
    role: Role,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<u32>,
    energy_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_uj: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_carry_uj: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carry_uj: Option<i64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    one_leaf: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    parts_outside: bool,
    /// Of a package: what the weights of events say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, Model>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_floor_mw: Option<u64>,
    source: MeterSource,
    state: State,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    reason: Option<Text<'a>>,
    method: Method,
}

fn state(energy_uj: &Result<u64, String>) -> (State, Option<Text<'_>>) {
    match energy_uj {
        Ok(_) => (State::Ok, None),
        Err(reason) => (State::Invalid, Some(Text::of(reason))),
    }
}

impl<'a> ZoneEntry<'a> {
    /// Each root with its leaves after it, then the leaves that stand alone.
    pub fn all_of(ledger: &'a Ledger) -> Vec<Self> {
        let mut entries = Vec::with_capacity(ledger.roots.len() + ledger.leaves.len());
        for root in &ledger.roots {
            entries.push(Self::of_root(root));
            entries.extend(ledger.leaves_of(root).map(Self::of_leaf));
        }
        let alone = |leaf: &&LeafZone| !ledger.roots.iter().any(|root| leaf.belongs_to(root));
        entries.extend(ledger.leaves.iter().filter(alone).map(Self::of_leaf));
        entries
    }

    fn of_root(root: &'a RootZone) -> Self {
        let (state, reason) = state(&root.energy_uj);
        let is_package = root.kind == ZoneKind::Package;
        Self {
            zone: Text::of(&root.zone),
            role: Role::Root,
            kind: Text::of(root.kind.as_str()),
            package: root.package,
            energy_uj: root.energy_uj.as_ref().ok().copied(),
            counter_uj: root.counter_uj,
            range_uj: root.range_uj,
            previous_carry_uj: is_package.then_some(root.previous_carry_uj),
            carry_uj: is_package.then_some(root.carry_uj),
            one_leaf: root.one_leaf.as_deref().map(Text::of),
            parts_outside: root.parts_outside,
            model: root.model.as_ref().map(Cow::Borrowed),
            idle_floor_mw: None,
            source: root.source,
            state,
            reason,
            method: root.method,
        }
    }

    fn of_leaf(leaf: &'a LeafZone) -> Self {
        let (state, reason) = state(&leaf.energy_uj);
        Self {
            zone: Text::of(&leaf.zone),
            role: Role::Leaf,
            kind: Text::of(match leaf.kind {
                _ if leaf.rest => REST,
                ZoneKind::Package => WHOLE,
                kind => kind.as_str(),
            }),
            package: leaf.package,
            energy_uj: leaf.energy_uj.as_ref().ok().copied(),
            counter_uj: leaf.counter_uj,
            range_uj: leaf.range_uj,
            previous_carry_uj: None,
            carry_uj: None,
            one_leaf: None,
            parts_outside: false,
            model: None,
            idle_floor_mw: leaf.idle_floor_mw,
            source: leaf.source,
            state,
            reason,
            method: leaf.method,
        }
    }

    /// Whether it is a leaf, not a root.
    pub fn is_leaf(&self) -> bool {
        self.role == Role::Leaf
    }

    fn energy(&self) -> Result<Result<u64, String>, String> {
        match (self.state, self.energy_uj, &self.reason) {
            (State::Ok, Some(energy_uj), None) => Ok(Ok(energy_uj)),
            (State::Invalid, None, Some(reason)) => Ok(Err(reason.to_string())),
            _ => Err(format!(
                "{}: its state does not go with its energy and reason",
                self.zone
            )),
        }
    }

    fn kind(&self) -> Result<ZoneKind, String> {
        ZoneKind::from_word(&self.kind).ok_or_else(|| format!("{}: kind `{}` is unknown", self.zone, self.kind))
    }

    /// The root that was written.
    ///
    /// # Errors
    ///
    /// If it contradicts itself.
    pub fn root(&self) -> Result<RootZone, String> {
        let kind = self.kind()?;
        if (kind == ZoneKind::Package) != (self.carry_uj.is_some() && self.previous_carry_uj.is_some()) {
            return Err(format!("{}: packages, and no others, have carries", self.zone));
        }
        Ok(RootZone {
            zone: self.zone.to_string(),
            kind,
            package: self.package,
            energy_uj: self.energy()?,
            counter_uj: self.counter_uj,
            range_uj: self.range_uj,
            previous_carry_uj: self.previous_carry_uj.unwrap_or(0),
            carry_uj: self.carry_uj.unwrap_or(0),
            one_leaf: self.one_leaf.as_ref().map(ToString::to_string),
            parts_outside: self.parts_outside,
            model: self.model.as_deref().cloned(),
            source: self.source,
            method: self.method,
        })
    }

    /// The leaf that was written.
    ///
    /// # Errors
    ///
    /// If it contradicts itself.
    pub fn leaf(&self) -> Result<LeafZone, String> {
        let rest = &*self.kind == REST;
        let kind = match (rest, self.package) {
            (false, _) if &*self.kind == WHOLE => ZoneKind::Package,
            (false, _) => match self.kind()? {
                ZoneKind::Package | ZoneKind::Machine => {
                    return Err(format!("{}: a leaf is not of kind `{}`", self.zone, self.kind));
                }
                kind => kind,
            },
            (true, Some(_)) => ZoneKind::Package,
            (true, None) => ZoneKind::Machine,
        };
        Ok(LeafZone {
            zone: self.zone.to_string(),
            kind,
            rest,
            package: self.package,
            energy_uj: self.energy()?,
            counter_uj: self.counter_uj,
            range_uj: self.range_uj,
            source: self.source,
            method: self.method,
            idle_floor_mw: self.idle_floor_mw,
        })
    }
}
