//! Parts of a line that need no copy of it.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// Text: a piece of the line, or a copy where the line has an escape in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

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

/// µJ by leaf, in the order of the line. A handful, so that a search is cheaper than a tree.
#[derive(Clone, Debug, Default)]
pub struct Energies<'a>(Vec<(Text<'a>, u64)>);

impl Energies<'_> {
    /// Leaf and µJ.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(zone, energy_uj)| (&**zone, *energy_uj))
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
                Ok(Energies(energies))
            }
        }

        deserializer.deserialize_map(Map)
    }
}
