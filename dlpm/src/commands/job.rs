//! `dlpm job`: what a job has used on this node.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    causes::told,
    cli::JobArgs,
    fleet::{
        job::Job,
        life::{Life, Lives, NAMES, Read},
    },
    log::date::date,
    printable,
    sinks::terminal::{self, print, say},
    socket::{client::Client, wire::JobAnswer},
    sources::clock::monotonic_ns,
    tenants::Wanted,
};

/// The exit status where the time of `--wait` was over.
const NOT_FINAL: u8 = 3;

/// From one question to the next.
const STEP: Duration = Duration::from_millis(200);

/// How long an agent is waited for that is not there: one that is being restarted is back by then, and where there is none,
/// an epilog holds its node up no longer.
const RETURN: Duration = Duration::from_secs(5);

/// Columns where there is no terminal.
const WIDTH: u16 = 120;

/// Runs the command; its errors are printed.
pub fn run(args: &JobArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = runtime
        .context("the agent cannot be waited for")
        .and_then(|runtime| runtime.block_on(job(args)));
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say(&format!(
                "warning: job {} had not ended within {} s: what is printed is not final",
                args.id,
                args.wait.unwrap_or(0)
            ));
            ExitCode::from(NOT_FINAL)
        }
        Err(error) => {
            say(&told(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Prints it. Whether that is what was waited for.
async fn job(args: &JobArgs) -> Result<bool> {
    let (client, called_ns) = (Client::new(&args.agent), monotonic_ns());
    let begin = Instant::now();
    let until = args.wait.map(|seconds| begin + Duration::from_secs(seconds));
    loop {
        let answered = client.job(&args.id).await;
        let mut lives = match &answered {
            Ok(answer) => living(answer)?,
            Err(_) => Vec::new(),
        };
        let waits = until.is_some_and(|until| Instant::now() < until);
        // What was made before the call is known only to an interval that ended after it.
        let is_current = answered.as_ref().map_or(true, |answer| answer.end_ns >= called_ns);
        if waits && (!is_current || lives.iter().any(|life| !life.ended)) {
            tokio::time::sleep(STEP).await;
            continue;
        }
        let mut job = Job::new(&args.id, Wanted::job(&args.id)?);
        let ended = lives.iter().any(|life| life.ended);
        lives.retain(|life| !life.ended);
        let troubles = finished(args, &mut lives, &mut job);
        lives.iter().for_each(|life| job.add(life, true));
        if let Ok(answer) = &answered {
            job.on(&answer.node_id);
        }
        let is_back_soon = answered.is_err() && begin.elapsed() < RETURN;
        if waits && (ended || is_back_soon) && job.is_unknown() {
            tokio::time::sleep(STEP).await;
            continue;
        }
        if job.is_unknown() {
            let error = answered.err().map(|error| error.to_string());
            return Err(unknown(args, error, &troubles, ended));
        }
        if let Err(error) = &answered {
            say(&format!("note: {error}; what runs is missing"));
        }
        for trouble in troubles {
            say(&format!("warning: {trouble}"));
        }
        show(args, &job)?;
        return Ok(args.wait.is_none() || !job.runs());
    }
}

/// What the agent says.
fn living(answer: &JobAnswer) -> Result<Vec<Life>> {
    let lives = answer
        .tenants
        .iter()
        .map(|tenant| serde_json::from_value(tenant.clone()));
    lives
        .collect::<Result<_, _>>()
        .context("the agent's answer makes no sense here: it is another version than this dlpm, so restart it")
}

/// Adds the lines of the agent's files. What could not be read of them, in words. A life that has ended since the agent
/// was asked is taken out of `lives`.
fn finished(args: &JobArgs, lives: &mut Vec<Life>, job: &mut Job) -> Vec<String> {
    let mut troubles = Vec::new();
    // The newer one first: lines that are moved to the older one meanwhile are read twice and not left out.
    let mut seen = BTreeSet::new();
    for name in NAMES.into_iter().rev() {
        let path = args.state_dir.join(name);
        match read(&path, lives, &mut seen, job) {
            Ok(wrong) => troubles.extend(wrong),
            // The older one is there only after the newer one was full.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != NAMES[1] => {}
            Err(error) => troubles.push(format!("{} cannot be read: {error}", path.display())),
        }
    }
    troubles
}

/// Adds the lines of one file that are of the job and not `seen`; which of its lines are wrong, in words.
fn read(
    path: &Path,
    lives: &mut Vec<Life>,
    seen: &mut BTreeSet<(String, u64)>,
    job: &mut Job,
) -> io::Result<Option<String>> {
    let mut lines = Lives::open(path)?;
    let mut wrong = None;
    while let Some(read) = lines.read()? {
        match read {
            Read::Life(life) if job.has(&life) && seen.insert((life.boot_id.clone(), life.number)) => {
                lives.retain(|living| living.tenant != life.tenant || living.begin_unix_ns != life.begin_unix_ns);
                job.add(&life, false);
            }
            // One that is being written is of the next question.
            Read::Life(_) | Read::Torn => {}
            Read::Wrong(why) => {
                wrong.get_or_insert_with(|| {
                    format!("{}:{}: {why}; what it says is missing", path.display(), lines.number())
                });
            }
        }
    }
    Ok(wrong)
}

fn show(args: &JobArgs, job: &Job) -> Result<()> {
    if args.json {
        return Ok(print(&job.json())?);
    }
    let until = date(job.end_unix_ns(), super::local_timezone());
    let state = if job.runs() {
        format!(
            "runs; what it has used until {until}, by the agent at {}",
            args.agent.display()
        )
    } else {
        format!("ended by {until}; from {}", args.state_dir.join(NAMES[1]).display())
    };
    let width = terminal::columns().map_or(WIDTH, |columns| columns.max(80));
    let text = format!("{}: {state}\n{}", job.name(), job.table().text(width));
    Ok(print(&printable::page(&text))?)
}

/// Why there is nothing to show.
fn unknown(args: &JobArgs, agent: Option<String>, troubles: &[String], ended: bool) -> anyhow::Error {
    let mut why = format!("nothing is known of job {} on this node", args.id);
    if ended {
        why += ": it has ended, and its line is not in finished.jsonl yet; the agent says at /readyz what keeps it";
        return anyhow::Error::msg(why);
    }
    for reason in agent.iter().chain(troubles) {
        why += &format!("; {reason}");
    }
    why += match (&agent, troubles) {
        (Some(_), _) => {
            ". Start the agent (`systemctl start dlpm-agent`), or say where it is with --agent and --state-dir"
        }
        (None, []) => {
            ". It ran elsewhere, ended long ago, or began when the agent did not run; `squeue` and `sacct` list numbers \
             and nodes"
        }
        (None, _) => ". Ask with sudo, and say where the agent's folder is with --state-dir",
    };
    anyhow::Error::msg(why)
}
