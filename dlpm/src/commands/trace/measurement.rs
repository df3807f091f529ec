//! What a trace drives: an engine of its own, or the agent.

use anyhow::Result;
use tokio::process::Child;

use super::{control::Mark, journal::Journal};

/// Somebody who measures.
pub trait Measurement {
    /// What is left of it.
    fn journal(&mut self) -> &mut Journal;

    /// Follows the traced command and all its descendants.
    fn follow(&mut self, child: &Child);

    /// Waits for what has to be done next, and does it. Loses nothing if it is dropped.
    ///
    /// # Errors
    ///
    /// Where the trace cannot go on.
    async fn go_on(&mut self) -> Result<()>;

    /// Ends an interval at the moment of these marks, and answers them.
    ///
    /// # Errors
    ///
    /// Where the trace cannot go on.
    async fn mark(&mut self, marks: Vec<Mark>) -> Result<()>;

    /// Ends the last, partial interval, ends the log and prints the summary. Whether the whole log was written.
    ///
    /// # Errors
    ///
    /// Where CPU time was lost; what was measured before is written all the same.
    async fn finish(&mut self) -> Result<bool>;
}
