//! Phases as bands above a chart: in lanes, so that those that nest or overlap can be told apart.

use std::collections::HashMap;

/// Lanes at most; what would need more is counted.
const LANES: usize = 5;

/// Bands that are kept at most: more than a chart has pixels.
const MOST: usize = 4000;

/// One phase on the time axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Its label.
    pub label: String,
    /// Begin and end on the axis, in ns.
    pub begin_ns: u64,
    /// The end.
    pub end_ns: u64,
    /// 0 is next to the chart.
    pub lane: usize,
    /// Number of the label, in the order of first appearance.
    pub label_index: usize,
}

/// All phases of a chart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bands {
    /// In the order of their beginnings.
    pub bands: Vec<Band>,
    /// Lanes that are used.
    pub lanes: usize,
    /// Phases for which there was no lane, or no room.
    pub left_out: usize,
}

impl Bands {
    /// Lays out phases: label, begin and end in ns. A phase takes the first lane that is free; of two that begin together
    /// the longer one goes first.
    pub fn new(phases: impl IntoIterator<Item = (String, u64, u64)>) -> Self {
        let mut phases: Vec<_> = phases.into_iter().filter(|(_, begin, end)| begin < end).collect();
        phases.sort_by_key(|(_, begin_ns, end_ns)| (*begin_ns, std::cmp::Reverse(*end_ns)));
        let mut bands = Self::default();
        let mut ends = [0; LANES];
        let mut labels: HashMap<String, usize> = HashMap::new();
        for (label, begin_ns, end_ns) in phases {
            let free = ends.iter().position(|end| *end <= begin_ns);
            let Some(lane) = free.filter(|_| bands.bands.len() < MOST) else {
                bands.left_out += 1;
                continue;
            };
            ends[lane] = end_ns;
            bands.lanes = bands.lanes.max(lane + 1);
            let next = labels.len();
            let label_index = *labels.entry(label.clone()).or_insert(next);
            bands.bands.push(Band {
                label,
                begin_ns,
                end_ns,
                lane,
                label_index,
            });
        }
        bands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(phases: &[(&str, u64, u64)]) -> Vec<usize> {
        let phases = phases
            .iter()
            .map(|(label, begin, end)| ((*label).to_owned(), *begin, *end));
        Bands::new(phases).bands.iter().map(|band| band.lane).collect()
    }

    #[test]
    fn phases_in_a_row_share_a_lane_and_nested_ones_do_not() {
        assert_eq!(lanes(&[("a", 0, 10), ("b", 10, 20), ("a", 20, 30)]), [0, 0, 0]);
        assert_eq!(lanes(&[("outer", 0, 100), ("a", 0, 10), ("b", 10, 20)]), [0, 1, 1]);
        assert_eq!(lanes(&[("a", 0, 10), ("b", 5, 15), ("c", 10, 20)]), [0, 1, 0]);
    }

    #[test]
    fn a_label_keeps_its_number() {
        let bands = Bands::new([("a", 0, 1), ("b", 1, 2), ("a", 2, 3)].map(|(label, b, e)| (label.to_owned(), b, e)));
        let indices: Vec<_> = bands.bands.iter().map(|band| band.label_index).collect();
        assert_eq!(indices, [0, 1, 0]);
    }

    #[test]
    fn what_finds_no_lane_is_counted() {
        let bands = Bands::new((0..7u64).map(|depth| (format!("{depth}"), depth, 100)));
        assert_eq!((bands.lanes, bands.left_out), (LANES, 7 - LANES));
    }
}
