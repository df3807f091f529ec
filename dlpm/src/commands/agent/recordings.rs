//! The measuring thread's half of recordings: it ends intervals for them, follows trees, and hands intervals on.

use std::sync::Arc;

use anyhow::Result;

use super::served::Served;
use crate::{
    attribution::{Options, selection::Selection},
    cli::{AgentArgs, IdleChoice},
    engine::Engine,
    interval::Interval,
    sinks::{segments::Encoding, terminal::say},
    socket::{
        Listener, Server, ServerOptions,
        feed::{self, Ask, Base, Feed, Root},
        wire::MachineFacts,
    },
    sources::{cpu_model::cpu_model, host::boot_id, proc_fs, processes::Branch, timezone::local},
};

/// Why an interval ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// It is one of the agent's own, and not only one that a recording asked for.
    pub is_tick: bool,
}

/// Everybody's recordings, as far as the measuring thread sees them.
pub struct Recordings {
    feed: Feed,
    /// `None`: nobody can record.
    server: Option<Server>,
    watched: Vec<Selection>,
    procfs: std::path::PathBuf,
}

impl Recordings {
    /// Starts to serve the socket, if there is one. `notes` are what a user of this machine has to know.
    ///
    /// # Errors
    ///
    /// Where it cannot be served without rights.
    pub fn start(
        listener: Option<Listener>,
        args: &AgentArgs,
        notes: &[String],
        options: &Options,
        engine: &mut Engine<Cut>,
        served: Arc<Served>,
    ) -> Result<Self> {
        let machine = engine.machine();
        let procfs = args.machine.roots.procfs.clone();
        let (identity, _) = machine.cpu_time().identity();
        let facts = MachineFacts {
            node_id: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            boot_id: boot_id(&procfs),
            cpu_model: cpu_model(&procfs),
            gpus: machine.gpus().describe(),
            identity,
            idle_policy: options.idle_policy,
            idle_policy_by_operator: args.machine.idle_policy != IdleChoice::Auto,
            smt_weight_permille: options.smt_weight_permille,
            idle_floors_mw: options.idle_floors_mw.clone(),
            notes: notes.to_vec(),
        };
        let (feed, source) = feed::feed(Base {
            options: options.clone(),
            facts,
        });
        let encoding = Encoding {
            identity,
            aliases: true,
            timezone: local().timezone.clone(),
        };
        let options = ServerOptions {
            source,
            encoding,
            interval_ms: u64::try_from(args.interval.as_millis()).unwrap_or(u64::MAX),
            tenants: served,
        };
        let server = listener.map(|listener| Server::start(listener, options)).transpose()?;
        if let Some(server) = &server {
            say(&format!(
                "note: every user can measure their own processes at {}",
                server.path().display()
            ));
        }
        Ok(Self {
            feed,
            server,
            watched: Vec::new(),
            procfs,
        })
    }

    /// Waits for requests. Loses none if it is dropped.
    pub async fn asks(&mut self) -> Vec<Ask> {
        self.feed.asks().await
    }

    /// Does what is asked for: one border for all who want one.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn obey(&mut self, asks: Vec<Ask>, engine: &mut Engine<Cut>) -> Result<()> {
        let mut numbers = Vec::new();
        for ask in asks {
            match ask {
                Ask::Border(number) => numbers.push(number),
                Ask::Follow {
                    pid,
                    root,
                    tree,
                    uid,
                    found,
                } => {
                    let branch = match root {
                        Root::Whole => Branch::whole(tree),
                        Root::Descendants => Branch::descendants(tree),
                    };
                    let is_theirs = uid.is_none_or(|uid| {
                        proc_fs::read_one(&self.procfs, pid).is_some_and(|process| process.uid == Some(uid))
                    });
                    let is_found = is_theirs && engine.machine().processes().add_root(pid, branch).is_some();
                    let _ = found.send(is_found);
                }
                Ask::Forget(tree) => engine.machine().processes().forget_tree(tree),
                Ask::Watch(selections) => self.watched = selections,
            }
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.seal(engine, Cut { is_tick: false }, numbers)
    }

    /// Ends an interval, and tells the recordings where.
    ///
    /// # Errors
    ///
    /// Where CPU time is lost.
    pub fn seal(&mut self, engine: &mut Engine<Cut>, cut: Cut, numbers: Vec<u64>) -> Result<()> {
        Ok(engine.seal(cut, |border| self.feed.border(numbers, border, cut.is_tick))?)
    }

    /// Hands an interval on.
    pub fn tell(&self, interval: &Arc<Interval>) {
        self.feed.interval(interval);
    }

    /// How recordings attribute that begin from now on.
    pub fn attribute_by(&self, options: &Options) {
        self.feed.attribute_by(options);
    }

    /// Whose memory they want.
    pub fn watched(&self) -> &[Selection] {
        &self.watched
    }

    /// Looks again who may see everybody.
    pub fn reload(&self) {
        if let Some(server) = &self.server {
            server.reload();
        }
    }

    /// Ends all recordings. Their last lines are handed over as far as somebody reads them at once.
    pub fn finish(self) {
        self.feed.stop();
        if let Some(server) = self.server {
            server.finish();
        }
    }
}
