//! Ends the interval of one CPU, also of one that is offline or on its way.

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};

use super::{CpuTimeError, Tables, loader};

/// Seals one CPU: begin and end of the interval there. `None`: it was offline throughout.
pub(super) fn seal_cpu(
    program: &RawTracePoint,
    tables: &Tables,
    cpu: u32,
    ended: u64,
    target: u64,
) -> Result<Option<(u64, u64)>, CpuTimeError> {
    let run = || {
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = target;
        options.cpu = Some(cpu);
        match program.test_run(options) {
            Ok(_) => Ok(true),
            Err(error) if loader::is_offline(&error) => Ok(false),
            Err(source) => Err(CpuTimeError::refused("seal", source)),
        }
    };
    let bounds = |end_ns: Option<u64>| {
        let buffer = tables.buffer(cpu, ended);
        (buffer.begin_ns, end_ns.unwrap_or(buffer.end_ns))
    };
    if run()? {
        return Ok(Some(bounds(None)));
    }
    // Offline. It may have been off since an earlier seal: then there is no interval to end.
    let begun_ns = tables.buffer(cpu, ended).begin_ns;
    let (_, pending) = tables.since_and_gap(cpu);
    tables.set_gap(cpu, target);
    // It may have come back between the two steps; then this makes sure that it has turned.
    let is_back = run()?;
    // Off since an earlier seal, and not back for an event before `set_gap`.
    if pending != 0 && tables.buffer(cpu, ended).begin_ns == begun_ns {
        return Ok(None);
    }
    if is_back {
        return Ok(Some(bounds(None)));
    }
    let (since_ns, pending) = tables.since_and_gap(cpu);
    // Without any event so far there has been no interval.
    if since_ns == 0 {
        return Ok(None);
    }
    Ok(Some(bounds((pending != 0).then_some(since_ns))))
}
