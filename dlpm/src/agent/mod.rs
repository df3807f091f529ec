//! What `dlpm agent` counts for months, tenant by tenant. Pure: files, threads and the network are in `sinks` and `web`.

pub mod admission;
pub mod amounts;
pub mod counters;
pub mod exposition;
pub mod facts;
pub mod line;
pub mod record;
pub mod scrapers;
pub mod unobserved;

#[cfg(test)]
mod tests;
