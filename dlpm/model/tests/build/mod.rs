//! Files of models for tests, written after the descriptions of their formats.

pub mod gguf;
