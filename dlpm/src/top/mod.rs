//! What `dlpm top` shows: who draws how much now, and has used since it began. Pure, but for [`ratatui`]'s buffers:
//! ledgers and keys go in, a screen comes out.

mod app;
mod lines;
mod screen;
mod tally;
mod text;

#[cfg(test)]
mod tests;

pub use app::{App, Flow, Key, Order, View};
pub use screen::{Colours, draw};
pub use tally::Tally;
pub use text::{json, plain};
