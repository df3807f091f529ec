//! `dlpm report`: what a log says.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;

use super::caller;
use crate::{
    cli::{By, Format, ReportArgs},
    log::{LogReader, names::RESULTS_NAME, window::Window},
    printable::{self, printable},
    report::{
        collect::Collected,
        facts::{self, Carbon},
        listing,
        model::Model,
        results::{Reached, Results},
        sheet::{self, Cell, Record},
        sheets::Sheets,
        text::Text,
    },
    report_html,
    sinks::{
        summary::SummaryOptions,
        terminal::{self, print},
    },
};

/// Lines of a table on a terminal.
const TOP: usize = 15;

/// Columns where there is no terminal.
const WIDTH: u16 = 140;

/// Runs the command; its errors are printed.
pub fn run(args: &ReportArgs) -> ExitCode {
    super::status(report(args).and_then(|text| Ok(print(&text)?)))
}

fn report(args: &ReportArgs) -> Result<String> {
    let timezone = super::local_timezone();
    let reader = LogReader::open(&args.folder)?;
    if args.list {
        return listing::list(reader, args.format).context("the log cannot be listed");
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
        report_html::write(&args.folder, &options, file, args.force, caller::identity()?)?;
        return Ok(String::new());
    }
    let collected = Collected::read(reader, &window, timezone, results)?;
    check(args, &collected, &path)?;
    let output = Output {
        args,
        collected: &collected,
        timezone,
        model: model.as_ref(),
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
}

impl Output<'_> {
    fn carbon(&self) -> Option<Carbon> {
        let (grams_per_kwh, pue) = (self.args.carbon, self.args.pue);
        (grams_per_kwh.is_some() || pue.is_some()).then(|| Carbon {
            grams_per_kwh,
            pue: pue.unwrap_or(1.0),
        })
    }

    fn inferences(&self) -> Option<u64> {
        self.args.inferences.map(std::num::NonZeroU64::get)
    }

    fn table(&self) -> String {
        let options = SummaryOptions {
            width: width(),
            top: self.args.top.unwrap_or(TOP),
            details: true,
            cost: None,
            notes: Vec::new(),
        };
        let text = Text {
            collected: self.collected,
            options: &options,
            timezone: self.timezone,
            model: self.model,
            inferences: self.inferences(),
            carbon: self.carbon(),
            targets: &self.args.reach,
        };
        let exact = self.collected.totals.intervals > 0;
        let mut page = text.head();
        if exact {
            match self.args.by {
                Some(by) => page += &one_table(&text, by),
                None => {
                    page += &text.zones();
                    page += &text.processes();
                    if self.collected.totals.cgroups.len() > 1 {
                        page += &text.cgroups();
                    }
                    page += &text.gpus();
                    page += &text.phases();
                }
            }
        }
        page + &text.foreign() + &text.notes()
    }

    fn sheets(&self) -> Sheets<'_> {
        Sheets {
            collected: self.collected,
            top: self.args.top.unwrap_or(usize::MAX),
            model: self.model,
            inferences: self.inferences(),
        }
    }

    fn json(&self) -> Result<String> {
        let (collected, sheets) = (self.collected, self.sheets());
        let totals = &collected.totals;
        let mut record = Record::default()
            .with("report_schema", 1_u32)
            .and(facts::overview(collected, self.timezone));
        if let Some(carbon) = self.carbon() {
            record = record.with("carbon", facts::carbon(&carbon, totals));
        }
        let listed_uj = totals.listed().amount.energy();
        if let Some(model) = self.model {
            record = record.with("model", facts::model(model, &sheets, listed_uj));
        } else if self.inferences().is_some() {
            record = record.with("inference", sheets.inference(listed_uj));
        }
        if !collected.results.entries.is_empty() {
            record = record.with("results", facts::results(collected, &self.args.reach, self.timezone));
        }
        let options = SummaryOptions::default();
        let notes = facts::notes(collected, &options);
        record = record.with("notes", Cell::List(notes.into_iter().map(Cell::from).collect()));
        for by in [By::Zone, By::Process, By::Cgroup, By::Comm, By::Gpu, By::Phase] {
            if self.args.by.is_none_or(|wanted| wanted == by) {
                let (name, records) = records(&sheets, by);
                record = record.with(name, records.into_iter().collect::<Cell>());
            }
        }
        if collected.foreign.samples > 0 {
            let foreign = Record::default()
                .with("samples", collected.foreign.samples)
                .with("first_samples", collected.foreign.first_samples)
                .with("duration_s", collected.foreign.duration_s)
                .with("zones", sheets.foreign_zones().into_iter().collect::<Cell>())
                .with("processes", sheets.foreign_processes().into_iter().collect::<Cell>());
            record = record.with("aipowermeter", foreign);
        }
        let text = serde_json::to_string_pretty(&record)?;
        Ok(format!("{}\n", printable::json(&text)))
    }

    fn csv(&self) -> Result<String> {
        let (sheets, totals) = (self.sheets(), &self.collected.totals);
        let by = self.args.by.unwrap_or(By::Zone);
        if totals.intervals == 0 {
            let records = match by {
                By::Zone => sheets.foreign_zones(),
                By::Process => sheets.foreign_processes(),
                _ => bail!("AIPowerMeter recorded this log: it has zones and processes only"),
            };
            return sheet::csv(&records);
        }
        let (_, records) = records(&sheets, by);
        // A table travels alone: each row says what becomes of idle energy, and how its joules were made.
        let methods = facts::methods(totals).join("; ");
        let records: Vec<Record> = records
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
        sheet::csv(&records)
    }
}

fn one_table(text: &Text, by: By) -> String {
    let (table, otherwise) = match by {
        By::Zone => (text.zones(), "There was no energy meter"),
        By::Process => (text.processes(), ""),
        By::Cgroup => (text.cgroups(), ""),
        By::Comm => (text.comms(), ""),
        By::Gpu => (text.gpus(), "There was no GPU"),
        By::Phase => (
            text.phases(),
            "There are no phases: mark them with `dlpm mark` while a trace runs",
        ),
    };
    if table.is_empty() {
        format!("\n{otherwise}\n")
    } else {
        table
    }
}

fn records(sheets: &Sheets, by: By) -> (&'static str, Vec<Record>) {
    match by {
        By::Zone => ("zones", sheets.zones()),
        By::Process => ("processes", sheets.processes()),
        By::Cgroup => ("cgroups", sheets.cgroups()),
        By::Comm => ("comms", sheets.comms()),
        By::Gpu => ("gpus", sheets.gpus()),
        By::Phase => ("phases", sheets.phases()),
    }
}

fn width() -> u16 {
    terminal::columns().map_or(WIDTH, |columns| columns.max(80))
}
