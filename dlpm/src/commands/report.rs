//! `dlpm report`: what a log says.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;

use super::{caller, fleet};
use crate::{
    cli::{By, Format, ReportArgs},
    log::{LogReader, names::RESULTS_NAME, window::Window},
    printable::{self, printable},
    report::{
        collect::Collected,
        facts::{self, Carbon},
        listing,
        metadata::{listed, metadata},
        model::Model,
        notes::notes,
        results::{Reached, Results},
        tables::Tables,
        text::Text,
        work::Work,
    },
    report_html,
    sinks::terminal::{self, print},
    tables::{
        Depth, Table,
        phases::Inferences,
        record::{self, Cell, Record},
    },
    totals::groups::Grouping,
    validate,
};

/// Lines of a table on a terminal.
const TOP: usize = 15;

/// Columns where there is no terminal.
const WIDTH: u16 = 140;

/// Runs the command; its errors are printed.
pub fn run(args: &ReportArgs) -> ExitCode {
    let validation = match args.folders.as_slice() {
        [path] => validate::file::of_path(path),
        _ => None,
    };
    let text = match validation {
        // Its file ends as those of fleets do.
        Some(file) => super::validate::shown::report(args, &file),
        None if fleet::is_meant(args) => return fleet::run(args),
        None => report(args),
    };
    super::status(text.and_then(|text| Ok(print(&text)?)))
}

fn report(args: &ReportArgs) -> Result<String> {
    let timezone = super::local_timezone();
    // Several are a fleet.
    let log = args.folders.first().context("give the folder of a log")?;
    let reader = LogReader::open(log)?;
    if args.list {
        let listing = listing::list(reader).context("the log cannot be listed")?;
        return match args.format {
            Format::Table => Ok(listing.table()),
            Format::Json => listing.json(),
            Format::Csv => listing.csv(),
        };
    }
    let path = reader.path().to_owned();
    let folder = path.parent().unwrap_or(Path::new("."));
    let model = Model::of_folder(folder).map_err(anyhow::Error::msg)?;
    let results = Results::of_folder(folder, timezone).map_err(anyhow::Error::msg)?;
    let window = Window {
        from: args.from.clone(),
        to: args.to.clone(),
        phase: args.phase.clone(),
    };
    if let Some(file) = &args.html {
        let options = report_html::Options {
            window,
            top: args.top.unwrap_or(report_html::TOP),
        };
        report_html::write(log, &options, file, args.force, caller::identity()?)?;
        return Ok(String::new());
    }
    let collected = Collected::read(reader, &window, timezone, results, args.by.and_then(grouping))?;
    check(args, &collected, &path)?;
    let output = Output {
        args,
        collected: &collected,
        timezone,
        model: model.as_ref(),
        // Who it is, is in the first line only: a file that cannot be read costs no more than that.
        listed: metadata(folder)
            .ok()
            .and_then(|metadata| listed(&metadata, collected.traces)),
    };
    match args.format {
        Format::Table => Ok(output.table()),
        Format::Json => output.json(),
        Format::Csv => output.csv(),
    }
}

/// What was asked for and is not in the log.
fn check(args: &ReportArgs, collected: &Collected, path: &Path) -> Result<()> {
    if let Some(label) = &args.phase
        && !collected.phases.totals.contains_key(label)
    {
        let labels: Vec<String> = collected
            .phases
            .in_order()
            .iter()
            .map(|(label, _)| printable(label))
            .collect();
        if labels.is_empty() {
            bail!(
                "{} has no phases: mark them with `dlpm mark` while the trace runs",
                path.display()
            );
        }
        bail!(
            "there is no phase `{}` in {}: it has {}",
            printable(label),
            path.display(),
            labels.join(", ")
        );
    }
    if collected.is_empty() {
        if collected.outside > 0 {
            bail!(
                "none of the {} intervals of {} ends in that window: leave out --from, --to and --phase to see what the \
                 log has",
                collected.outside,
                path.display()
            );
        }
        bail!(
            "{} holds no interval yet: a trace writes its first line when its first interval has ended",
            path.display()
        );
    }
    for target in &args.reach {
        if collected.results.reach(&target.metric, target.value) == Reached::Unknown {
            let known: Vec<String> = collected
                .results
                .newest()
                .iter()
                .map(|(metric, ..)| printable(metric))
                .collect();
            if known.is_empty() {
                bail!(
                    "there are no results ({RESULTS_NAME}) beside {}: write some with `dlpm result DIR {}=…`",
                    path.display(),
                    printable(&target.metric)
                );
            }
            bail!(
                "there is no result `{}`; there are {}",
                printable(&target.metric),
                known.join(", ")
            );
        }
    }
    Ok(())
}

struct Output<'a> {
    args: &'a ReportArgs,
    collected: &'a Collected,
    timezone: &'a TimeZone,
    model: Option<&'a Model>,
    listed: Option<String>,
}

impl Output<'_> {
    fn carbon(&self) -> Option<Carbon> {
        let (grams_per_kwh, pue) = (self.args.carbon, self.args.pue);
        (grams_per_kwh.is_some() || pue.is_some()).then(|| Carbon {
            grams_per_kwh,
            pue: pue.unwrap_or(1.0),
        })
    }

    fn tables(&self, depth: Depth) -> Tables<'_> {
        let mult_adds = self.model.and_then(|model| model.total_mult_adds);
        Tables {
            collected: self.collected,
            depth,
            inferences: self.args.inferences.map(|count| Inferences {
                count: count.get(),
                mult_adds,
            }),
        }
    }

    fn work(&self) -> Work<'_> {
        Work {
            model: self.model,
            inferences: self.args.inferences.map(std::num::NonZeroU64::get),
            tokens: self.args.tokens.map(std::num::NonZeroU64::get),
            peak_tflops: self.args.peak_tflops,
        }
    }

    fn table(&self) -> String {
        let by = self.args.by;
        let tables = self.tables(Depth {
            top: self.args.top.unwrap_or(TOP),
            details: true,
            each: self.args.each || by == Some(By::Process),
        });
        let text = Text {
            collected: self.collected,
            tables,
            width: terminal::columns().map_or(WIDTH, |columns| columns.max(80)),
            listed: self.listed.as_deref(),
            timezone: self.timezone,
            model: self.model,
            carbon: self.carbon(),
            targets: &self.args.reach,
        };
        let totals = &self.collected.totals;
        let mut page = text.head();
        page += &self.work().text(totals.listed().amount.energy(), totals.duration_ns);
        if self.collected.totals.intervals > 0 {
            let shown = |by: By| table(&tables, by, self.args.by == Some(by)).text(text.width);
            match by {
                Some(by) => {
                    page += &Some(shown(by))
                        .filter(|text| !text.is_empty())
                        .unwrap_or_else(|| absent(by))
                }
                None => {
                    let several = self.collected.totals.cgroups.len() > 1;
                    let all = [By::Phase, By::Process, By::Cgroup, By::Gpu, By::Zone];
                    all.into_iter()
                        .filter(|by| *by != By::Cgroup || several)
                        .for_each(|by| page += &shown(by));
                }
            }
        }
        page + &text.foreign() + &text.notes()
    }

    fn json(&self) -> Result<String> {
        let (collected, tables) = (self.collected, self.whole());
        let totals = &collected.totals;
        let mut record = Record::default()
            .with("report_schema", 1_u32)
            .and(facts::overview(collected, self.timezone));
        if let Some(carbon) = self.carbon() {
            record = record.with("carbon", facts::carbon(&carbon, totals));
        }
        let listed_uj = totals.listed().amount.energy();
        if let Some(model) = self.model {
            record = record.with("model", facts::model(model, tables.inferences, listed_uj));
        } else if tables.inferences.is_some() {
            record = record.with("inference", facts::inference(tables.inferences, listed_uj));
        }
        if let Some(work) = self.work().record(listed_uj, totals.duration_ns) {
            record = record.with("work", work);
        }
        if !collected.results.entries.is_empty() {
            record = record.with("results", facts::results(collected, &self.args.reach, self.timezone));
        }
        let notes = notes(collected);
        record = record.with("notes", Cell::List(notes.into_iter().map(Cell::from).collect()));
        let grouped = self.args.by.filter(|by| grouping(*by).is_some());
        let always = [By::Zone, By::Process, By::Cgroup, By::Comm, By::Gpu, By::Phase];
        for by in always.into_iter().chain(grouped) {
            if self.args.by.is_none_or(|wanted| wanted == by) {
                let table = table(&tables, by, false);
                record = record.with(table.id, table.records().into_iter().collect::<Cell>());
            }
        }
        if collected.foreign.samples > 0 {
            let foreign = Record::default()
                .with("samples", collected.foreign.samples)
                .with("first_samples", collected.foreign.first_samples)
                .with("duration_s", collected.foreign.duration_s)
                .with("zones", tables.foreign_zones().records().into_iter().collect::<Cell>())
                .with(
                    "processes",
                    tables.foreign_processes().records().into_iter().collect::<Cell>(),
                );
            record = record.with("aipowermeter", foreign);
        }
        let text = serde_json::to_string_pretty(&record)?;
        Ok(format!("{}\n", printable::json(&text)))
    }

    /// Tables for programs.
    fn whole(&self) -> Tables<'_> {
        self.tables(Depth {
            top: self.args.top.unwrap_or(usize::MAX),
            ..Depth::ALL
        })
    }

    fn csv(&self) -> Result<String> {
        let (tables, totals) = (self.whole(), &self.collected.totals);
        let by = self.args.by.unwrap_or(By::Zone);
        if totals.intervals == 0 {
            let table = match by {
                By::Zone => tables.foreign_zones(),
                By::Process => tables.foreign_processes(),
                _ => bail!("AIPowerMeter recorded this log: it has zones and processes only"),
            };
            return record::csv(&table.records());
        }
        // A table travels alone: each row says what becomes of idle energy, and how its joules were made.
        let methods = totals.methods().join("; ");
        let records: Vec<Record> = table(&tables, by, false)
            .records()
            .into_iter()
            .map(|record| {
                let record = record.with("idle_policy", facts::policy(totals));
                let record = match record.get("idle_time_share") {
                    Some(_) => record,
                    None => record.with("idle_time_share", facts::idle_share(totals)),
                };
                match record.get("methods") {
                    Some(_) => record,
                    None => record.with("methods", methods.as_str()),
                }
            })
            .collect();
        record::csv(&records)
    }
}

/// `alone`: nothing else was asked for.
fn table(tables: &Tables, by: By, alone: bool) -> Table {
    match by {
        By::Zone => tables.zones(),
        By::Process => tables.processes(),
        By::Cgroup => tables.cgroups(),
        By::Comm => tables.comms(),
        By::Tenant | By::Job | By::User | By::Unit => tables.groups(),
        By::Gpu => tables.gpus(),
        By::Phase => tables.phases(alone),
        // Those are of many nodes.
        By::Account | By::Node => Table::default(),
    }
}

/// What is added up only if it is asked for.
fn grouping(by: By) -> Option<Grouping> {
    match by {
        By::Tenant => Some(Grouping::Tenant),
        By::Job => Some(Grouping::Job),
        By::User => Some(Grouping::User),
        By::Unit => Some(Grouping::Unit),
        By::Zone | By::Process | By::Cgroup | By::Comm | By::Phase | By::Gpu | By::Account | By::Node => None,
    }
}

/// Why there is no such table.
fn absent(by: By) -> String {
    let why = match by {
        By::Zone => "There was no energy meter",
        By::Gpu => "There was no GPU",
        By::Phase => "There are no phases: mark them with `dlpm mark` while a trace runs",
        By::Process | By::Cgroup | By::Comm | By::Tenant | By::Job | By::User | By::Unit | By::Account | By::Node => {
            "Nothing ran"
        }
    };
    format!("\n{why}\n")
}
