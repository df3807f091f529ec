//! What a network process is started for.

use std::os::fd::BorrowedFd;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Bound, PushConfig, push::Target, settings::Settings};

/// What a network process gets, with the listeners if it serves.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    /// The core.
    pub(super) parent: u32,
    pub(super) task: Task,
}

/// What a network process is for.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    /// To serve whoever connects.
    Serve(Settings),
    /// To push to a collector.
    Push(Target),
}

/// The same on this side, with what it was configured by.
pub(super) enum Role {
    Serves(Box<Bound>),
    Pushes(Box<(PushConfig, Target)>),
}

impl Role {
    pub(super) fn task(&self) -> Task {
        match self {
            Self::Serves(bound) => Task::Serve(bound.settings.clone()),
            Self::Pushes(push) => Task::Push(push.1.clone()),
        }
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Serves(bound) => bound.descriptors(),
            Self::Pushes(_) => Vec::new(),
        }
    }

    /// Reads its files again. On an error everything stays as it was.
    pub(super) fn reload(&mut self) -> Result<()> {
        match self {
            Self::Serves(bound) => bound.settings = Bound::settings(&bound.config)?,
            Self::Pushes(push) => push.1 = push.0.target()?,
        }
        Ok(())
    }
}
