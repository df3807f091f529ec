//! The records that dlpm's eBPF programs and its user space share: one definition each.
#![no_std]
