//! Parts of a line that need no copy: of the ledger that is written, or of the line that is read.

use std::{borrow::Cow, collections::HashMap, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{attribution::ledger::LeafZone, interval::ZoneKind};

/// Text: a piece of the ledger or of the line, or a copy where the line has an escape in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    /// To be written.
    pub fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// To be written: a text that nobody else has.
    pub fn made(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// µJ by the name of the leaf, without the invalid ones, and without the GPUs and cores of which there is none: with
/// eight GPUs, or many cores, and thousands of processes these would be most of a line.
#[derive(Clone, Debug)]
pub enum Energies<'a> {
    /// As they were read, in the order of the line. A handful, so that a search is cheaper than a tree.
    Read(Vec<(Text<'a>, u64)>),
    /// To be written: leaves, and what is had of each.
    Of(&'a [LeafZone], &'a [u64]),
}

impl<'a> Energies<'a> {
    /// To be written.
    pub fn of(leaves: &'a [LeafZone], energy_uj: &'a [u64]) -> Self {
        Self::Of(leaves, energy_uj)
    }
}

impl Serialize for Energies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Read(entries) => {
                for (zone, energy_uj) in entries {
                    map.serialize_entry(zone, energy_uj)?;
                }
            }
            Self::Of(leaves, energy_uj) => {
                for (leaf, energy_uj) in leaves.iter().zip(*energy_uj) {
                    if leaf.energy_uj.is_ok() && (*energy_uj > 0 || !is_sparse(leaf.kind)) {
                        map.serialize_entry(&leaf.zone, energy_uj)?;
                    }
                }
            }
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Energies<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Energies<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from leaf to µJ")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut energies = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(entry) = map.next_entry()? {
                    energies.push(entry);
                }
                Ok(Energies::Read(energies))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

/// Whether most rows have nothing of such a leaf, so that 0 is not written.
fn is_sparse(kind: ZoneKind) -> bool {
    matches!(kind, ZoneKind::Gpu | ZoneKind::OneCore)
}

/// Leaves of a line, by name.
pub struct Leaves<'a> {
    leaves: &'a [LeafZone],
    places: HashMap<&'a str, usize>,
}

impl<'a> Leaves<'a> {
    /// These.
    pub fn of(leaves: &'a [LeafZone]) -> Self {
        let places = leaves.iter().enumerate().rev();
        Self {
            leaves,
            places: places.map(|(place, leaf)| (&*leaf.zone, place)).collect(),
        }
    }

    /// Energies in the order of the leaves; the invalid ones, GPUs and cores with 0, and no others, are missing.
    ///
    /// # Errors
    ///
    /// Where others are missing, or some do not belong there.
    pub fn energies(&self, by_leaf: &Energies, whose: impl Fn() -> String) -> Result<Vec<u64>, String> {
        let entries = match by_leaf {
            Energies::Read(entries) => entries.as_slice(),
            Energies::Of(_, energy_uj) => return Ok(energy_uj.to_vec()),
        };
        let mut found: Vec<Option<u64>> = vec![None; self.leaves.len()];
        for (at, (zone, energy_uj)) in entries.iter().enumerate() {
            // Mostly in the order of the leaves, which is cheaper than a search.
            let here = self
                .leaves
                .get(at)
                .is_some_and(|leaf| *leaf.zone == **zone)
                .then_some(at);
            let place = here.or_else(|| self.places.get(&**zone).copied());
            let Some(energy) = place.and_then(|place| found.get_mut(place)) else {
                return Err(format!("energy_uj of {} has {zone}, which is not a leaf", whose()));
            };
            if energy.replace(*energy_uj).is_some() {
                return Err(format!("energy_uj of {} has {zone} twice", whose()));
            }
        }
        self.leaves
            .iter()
            .zip(found)
            .map(|(leaf, energy_uj)| match (&leaf.energy_uj, energy_uj) {
                (Ok(_), Some(energy_uj)) => Ok(energy_uj),
                (Err(_), None) => Ok(0),
                // Most processes use no GPU, and few cores.
                (Ok(_), None) if is_sparse(leaf.kind) => Ok(0),
                (Ok(_), None) => Err(format!("energy_uj of {} lacks {}", whose(), leaf.zone)),
                (Err(_), Some(_)) => Err(format!("energy_uj of {} has {}, which is invalid", whose(), leaf.zone)),
            })
            .collect()
    }
}
