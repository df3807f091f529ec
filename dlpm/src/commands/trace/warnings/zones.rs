//! When an energy zone is lost, when it is back, and when it contradicts the one that contains it.

use std::collections::BTreeMap;

use crate::{
    attribution::{
        energy_tree,
        ledger::{Ledger, RootZone},
    },
    interval::ZoneKind,
    printable::printable,
    tables::figures::decimal,
};

/// Losses of a zone that are reported; the summary counts all.
const TOLD: u32 = 5;

/// What has been said of the zones.
#[derive(Debug, Default)]
pub struct Zones(BTreeMap<String, Zone>);

#[derive(Debug, Default)]
struct Zone {
    lost: bool,
    losses: u32,
    outside: bool,
}

impl Zones {
    /// What is new with an interval, a sentence each.
    pub fn of(&mut self, ledger: &Ledger) -> Vec<String> {
        let mut new = Vec::new();
        let (mut lost, mut back): (BTreeMap<String, Vec<String>>, Vec<String>) = <_>::default();
        for reading in energy_tree::readings(ledger) {
            let zone = self.0.entry(reading.zone.clone()).or_default();
            match reading.energy_uj {
                Err(reason) if !zone.lost => {
                    (zone.lost, zone.losses) = (true, zone.losses.saturating_add(1));
                    if zone.losses <= TOLD {
                        let last = if zone.losses == TOLD {
                            " (again; from now on only the summary counts it)"
                        } else {
                            ""
                        };
                        lost.entry(reason).or_default().push(format!("{}{last}", reading.zone));
                    }
                }
                Ok(_) if zone.lost => {
                    zone.lost = false;
                    if zone.losses < TOLD {
                        back.push(reading.zone);
                    }
                }
                _ => {}
            }
        }
        for (reason, zones) in lost {
            new.push(format!(
                "no energy of {} is known now: {}",
                printable(&zones.join(", ")),
                printable(&reason)
            ));
        }
        if !back.is_empty() {
            let verb = if back.len() == 1 { "is" } else { "are" };
            new.push(format!("{} {verb} measured again", printable(&back.join(", "))));
        }
        for root in ledger.roots.iter().filter(|root| root.kind == ZoneKind::Package) {
            let zone = self.0.entry(root.zone.clone()).or_default();
            if root.parts_outside && !zone.outside {
                zone.outside = true;
                new.push(contradiction(root, ledger));
            }
        }
        new
    }
}

fn contradiction(root: &RootZone, ledger: &Ledger) -> String {
    let zone = printable(&root.zone);
    let joules = |uj: u128| decimal(uj, 6, 3);
    let parts_uj = energy_tree::parts_uj(&energy_tree::readings(ledger), root);
    let own = match &root.energy_uj {
        Ok(own_uj) => format!("{zone} counted {} J", joules(u128::from(*own_uj))),
        Err(_) => format!("{zone} is not known"),
    };
    format!(
        "the parts of {zone} counted more than it can contain ({} J in an interval in which {own}): one of these meters \
         is wrong. {zone} is split as one leaf from now on, and its parts are only shown",
        joules(parts_uj)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribution::{Options, attribute, energy_tree::Carries},
        interval::{Interval, MeterSource, ZoneReading},
    };

    struct Trace(Zones, Carries);

    impl Trace {
        fn new() -> Self {
            Self(Zones::default(), Carries::default())
        }

        /// What is said of an interval of a second in which these zones counted these joules.
        fn next(&mut self, zones: &[(&str, ZoneKind, Result<u64, &str>)]) -> Vec<String> {
            let reading = |(zone, kind, joules): &(&str, ZoneKind, Result<u64, &str>)| ZoneReading {
                zone: (*zone).to_owned(),
                kind: *kind,
                package: Some(0),
                energy_uj: joules.map(|joules| joules * 1_000_000).map_err(str::to_owned),
                counter_uj: None,
                range_uj: None,
                source: MeterSource::Powercap,
            };
            let interval = Interval {
                zones: zones.iter().map(reading).collect(),
                end_ns: 1_000_000_000,
                ..Interval::default()
            };
            let ledger = attribute(&interval, &Options::default(), &self.1);
            self.1 = self.1.after(&ledger);
            self.0.of(&ledger)
        }

        fn package(&mut self, whole: Result<u64, &str>, core: Result<u64, &str>) -> Vec<String> {
            self.next(&[
                ("package-0", ZoneKind::Package, whole),
                ("package-0/core", ZoneKind::Core, core),
            ])
        }
    }

    #[test]
    fn a_zone_that_is_lost_is_told_of_once_and_so_is_its_return() {
        for (zone, kind) in [
            ("package-0", ZoneKind::Package),
            ("dram-0", ZoneKind::Dram),
            ("psys", ZoneKind::Psys),
        ] {
            let mut trace = Trace::new();
            let mut say = |joules| trace.next(&[(zone, kind, joules)]);
            assert_eq!(say(Ok(1)), [""; 0]);
            assert_eq!(say(Err("gone")), [format!("no energy of {zone} is known now: gone")]);
            assert_eq!(say(Err("still gone")), [""; 0]);
            assert_eq!(say(Ok(1)), [format!("{zone} is measured again")]);
            assert_eq!(say(Ok(1)), [""; 0]);
        }
    }

    #[test]
    fn what_is_lost_for_one_reason_is_one_warning() {
        let mut trace = Trace::new();
        let lost = trace.package(Err("the machine slept"), Err("the machine slept"));
        assert_eq!(
            lost,
            ["no energy of package-0, package-0/core is known now: the machine slept"]
        );
        assert_eq!(
            trace.package(Ok(2), Ok(1)),
            ["package-0, package-0/core are measured again"]
        );
        // A part is reported even if its package is one leaf.
        let lost = trace.package(Ok(2), Err("\u{1b}[2J"));
        assert_eq!(lost.len(), 1);
        assert!(lost[0].starts_with("no energy of package-0/core is known now: ") && !lost[0].contains('\u{1b}'));
    }

    #[test]
    fn a_zone_that_flaps_does_not_flood() {
        let mut trace = Trace::new();
        let said: Vec<String> = (0..1_000)
            .flat_map(|at| trace.package(if at % 2 == 0 { Err("gone") } else { Ok(2) }, Ok(1)))
            .collect();
        assert_eq!(said.len(), 9, "{said:?}");
        assert!(said[8].contains("only the summary counts it"));
    }

    #[test]
    fn a_contradiction_is_told_of_once() {
        let mut trace = Trace::new();
        let said = trace.package(Ok(20), Ok(50));
        assert!(
            said[0].contains("50.000 J in an interval in which package-0 counted 20.000 J"),
            "{said:?}"
        );
        assert_eq!(trace.package(Ok(20), Ok(50)), [""; 0]);
    }
}
