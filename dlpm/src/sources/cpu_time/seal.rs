//! Ends the interval of one CPU by running the program `seal` there, also of one that is offline or on its way.

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};

use dlpm_common::CountsBuffer;

use super::{CpuTimeError, SealedCpu, Tables, loader};

/// The interval that ends, and the one that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Border {
    pub ended: u64,
    pub target: u64,
}

/// Runs the program on a CPU: whether the CPU is online.
fn run(program: &RawTracePoint, cpu: u32, border: Border) -> Result<bool, CpuTimeError> {
    let mut options = RawTracePointRunOptions::new();
    options.args[0] = border.target;
    options.cpu = Some(cpu);
    match program.test_run(options) {
        Ok(_) => Ok(true),
        Err(error) if loader::is_offline(&error) => Ok(false),
        Err(source) => Err(CpuTimeError::refused("seal", source)),
    }
}

/// Seals one CPU: what belongs to the interval there, and whether the program ran. `None`: it was offline throughout.
pub(super) fn seal_cpu(
    program: &RawTracePoint,
    tables: &Tables,
    cpu: u32,
    border: Border,
) -> Result<(Option<SealedCpu>, bool), CpuTimeError> {
    let sealed = |end_ns: Option<u64>| {
        let mut buffer = tables.buffer(cpu, border.ended);
        buffer.end_ns = end_ns.unwrap_or(buffer.end_ns);
        let counts = tables.counts(cpu, border.ended).map(|counts| CountsBuffer {
            // Of a CPU that is offline nobody has ended the interval.
            last: end_ns.map_or(counts.last, |_| tables.newest_counts(cpu)),
            ..counts
        });
        Some(SealedCpu::new(cpu, buffer, counts))
    };
    if run(program, cpu, border)? {
        return Ok((sealed(None), true));
    }
    // Offline. It may have been off since an earlier seal: then there is no interval to end.
    let begun_ns = tables.buffer(cpu, border.ended).begin_ns;
    let (since_ns, gap) = tables.since_and_gap(cpu);
    // It raced, took the turn of this border, and then it went: it is in the interval that begins.
    if since_ns != 0 && gap == 0 && tables.parity(cpu) == border.target & 1 {
        return Ok((sealed(None), false));
    }
    tables.set_gap(cpu, border.target);
    // It may have come back between the two steps; then this makes sure that it has turned.
    let is_back = run(program, cpu, border)?;
    // Off since an earlier seal, and not back for an event before `set_gap`.
    if gap != 0 && tables.buffer(cpu, border.ended).begin_ns == begun_ns {
        return Ok((None, is_back));
    }
    if is_back {
        return Ok((sealed(None), true));
    }
    let (since_ns, gap) = tables.since_and_gap(cpu);
    // Without any event so far there has been no interval.
    if since_ns == 0 {
        return Ok((None, false));
    }
    Ok((sealed((gap != 0).then_some(since_ns)), false))
}
