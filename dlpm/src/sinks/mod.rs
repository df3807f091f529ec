//! Where ledgers go: the log, the summary.
