//! `dlpm report` of many nodes: logs and tenants that have ended, added up.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::caller;
use crate::{
    causes::told,
    cli::{By, Format, ReportArgs},
    fleet::{
        read::{self, Collected},
        show,
        sums::By as Grouping,
    },
    log::window::{Moment, Window},
    plot::output,
    printable::{self, printable},
    report_html,
    sinks::terminal::{self, print, say},
    tables::record,
};

/// Lines of a table on a terminal.
const TOP: usize = 15;

/// Columns where there is no terminal.
const WIDTH: u16 = 140;

/// Whether a report is one of many nodes.
pub fn is_meant(args: &ReportArgs) -> bool {
    let is_by = matches!(args.by, Some(By::Node | By::Account));
    args.folders.len() > 1 || is_by || args.folders.iter().any(|path| read::is_agents(path))
}

/// Adds up; its errors are printed.
pub fn run(args: &ReportArgs) -> ExitCode {
    match add_up(args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What cannot be asked of several logs.
fn check(args: &ReportArgs) -> Result<()> {
    if let Some((option, _)) = args.of_one_log().iter().find(|(_, is_given)| *is_given) {
        bail!("{option} is for one log: give one folder, or leave it out");
    }
    if [&args.from, &args.to]
        .iter()
        .any(|moment| matches!(moment, Some(Moment::AfterBegin(_))))
    {
        bail!("several nodes have no common beginning: give --from and --to as dates or unix seconds");
    }
    Ok(())
}

fn groupings(args: &ReportArgs) -> Result<Vec<Grouping>> {
    Ok(vec![match args.by {
        None if args.format != Format::Csv => return Ok(Grouping::USUAL.to_vec()),
        None | Some(By::Node) => Grouping::Node,
        Some(By::Job) => Grouping::Job,
        Some(By::User) => Grouping::User,
        Some(By::Account) => Grouping::Account,
        Some(By::Tenant) => Grouping::Tenant,
        Some(By::Unit) => Grouping::Unit,
        Some(By::Zone | By::Process | By::Cgroup | By::Comm | By::Phase | By::Gpu) => {
            bail!(
                "many nodes are added up by node, job, user, account, tenant or unit: give one of these to --by, or one \
                 folder of a log"
            )
        }
    }])
}

/// Prints the sums. How much could not be read.
fn add_up(args: &ReportArgs) -> Result<u64> {
    check(args)?;
    let groupings = groupings(args)?;
    let timezone = super::local_timezone();
    if let Some(file) = &args.html {
        // Before long files are read.
        output::check(file, args.force, caller::identity()?)?;
    }
    let window = Window {
        from: args.from.clone(),
        to: args.to.clone(),
        phase: None,
    };
    let collected = read::read(&args.folders, &groupings, &window, timezone)?;
    for trouble in &collected.troubles {
        say(&format!("warning: {}", printable(trouble)));
    }
    let more = collected.trouble_count - collected.troubles.len() as u64;
    if more > 0 {
        say(&format!("warning: {more} more of this kind"));
    }
    if read::is_empty(&collected) && (collected.trouble_count > 0 || collected.outside > 0) {
        match collected.outside {
            0 => bail!("nothing was added up: no line of the files could be read"),
            outside => bail!("nothing was added up: all {outside} lines and intervals are outside of --from and --to"),
        }
    }
    match (&args.html, args.format) {
        (Some(file), _) => {
            let page = page(args, &collected, &show::headline(&collected, timezone));
            output::write(file, page.as_bytes(), args.force, caller::identity()?)?;
        }
        (None, Format::Table) => print(&text(args, &collected, &show::headline(&collected, timezone)))?,
        (None, Format::Json) => {
            let record = show::record(&collected, args.top.unwrap_or(usize::MAX));
            print(&format!(
                "{}\n",
                printable::json(&serde_json::to_string_pretty(&record)?)
            ))?;
        }
        (None, Format::Csv) => {
            let tables = show::tables(&collected, args.top.unwrap_or(usize::MAX));
            let records: Vec<_> = tables.iter().flat_map(|table| table.records()).collect();
            print(&record::csv(&records)?)?;
        }
    }
    Ok(collected.trouble_count)
}

fn text(args: &ReportArgs, collected: &Collected, headline: &str) -> String {
    let width = terminal::columns().map_or(WIDTH, |columns| columns.max(80));
    let mut page = format!("{headline}\n");
    for table in show::tables(collected, args.top.unwrap_or(TOP)) {
        page += &table.text(width);
    }
    if !collected.notes.is_empty() {
        page.push('\n');
    }
    for note in &collected.notes {
        page += &format!("note: {}\n", printable(note));
    }
    page
}

fn page(args: &ReportArgs, collected: &Collected, headline: &str) -> String {
    let tables = show::tables(collected, args.top.unwrap_or(report_html::TOP));
    let notes: Vec<String> = collected.notes.iter().chain(&collected.troubles).cloned().collect();
    printable::page(&report_html::tables(headline, &notes, &tables)).into_owned()
}
