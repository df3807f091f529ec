//! The `dlpm` program.

fn main() {}
