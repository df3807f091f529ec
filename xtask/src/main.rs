//! Everything of dlpm's development that shells out.

fn main() {}
