//! Everything that reads the machine.
