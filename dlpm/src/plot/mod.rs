//! Curves over time: values of any number of intervals in a few hundred bins, drawn as SVG or PNG.
//!
//! Used by `dlpm plot` and by the page of `dlpm report --html`, so that both show the same.

pub mod axis;
pub mod bands;
pub mod bins;
pub mod chart;
pub mod figure;
pub mod metrics;
pub mod output;
pub mod palette;
pub mod png;
pub mod scan;
pub mod timeline;
