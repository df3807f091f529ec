//! Files of models for tests, written after the descriptions of their formats.
#![allow(dead_code, reason = "each test program takes its part")]

pub mod damage;
pub mod gguf;
pub mod hugging_face;
pub mod keras;
pub mod legacy_torch;
pub mod tflite;
