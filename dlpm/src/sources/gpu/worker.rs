//! A thread for each GPU: calls into NVML block, and with a sick driver they may never return.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::Nvml;

use super::{
    library::Identity,
    reader::{Reader, unknown},
};
use crate::{
    interval::{GpuReading, MeterSource},
    sources::clock::monotonic_ns,
};

/// Distance of two readings of power, where energy is their integral.
const POWER_PERIOD: Duration = Duration::from_millis(50);

/// Distance of two looks at processes, which then decide whether it is time.
const PROCESS_PERIOD: Duration = Duration::from_millis(500);

/// The thread of one GPU, as seen from outside.
pub(super) struct Worker {
    identity: Identity,
    /// `None` once it is asked to end.
    requests: Option<Sender<u64>>,
    readings: Receiver<(u64, GpuReading)>,
    /// Number of the newest request.
    number: u64,
    /// The request without an answer, and when it was made.
    asked: Option<(u64, Instant)>,
    /// An answer came too late, so the next one does not cover its interval: how long it was late.
    late: Option<Duration>,
}

impl Worker {
    pub(super) fn start(nvml: Arc<Nvml>, identity: Identity) -> std::io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let (answers, readings) = mpsc::channel();
        let of_thread = identity.clone();
        thread::Builder::new()
            .name(format!("dlpm-gpu-{}", identity.index))
            .spawn(move || {
                serve(&nvml, of_thread, &asked, &answers);
                // In this order: whoever waits for the channel to close finds the library closed.
                drop(nvml);
                drop(answers);
            })?;
        Ok(Self {
            identity,
            requests: Some(requests),
            readings,
            number: 0,
            asked: None,
            late: None,
        })
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Asks for a reading, unless an earlier request is still without an answer.
    pub(super) fn request(&mut self) {
        if let Some((number, since)) = self.asked
            && self.answer(number, Duration::ZERO).is_some()
        {
            self.late = Some(since.elapsed());
        }
        if self.asked.is_none()
            && let Some(requests) = &self.requests
        {
            self.number += 1;
            // A thread that is gone shows when it does not answer.
            let _ = requests.send(self.number);
            self.asked = Some((self.number, Instant::now()));
        }
    }

    /// The reading that was asked for; without an answer by `deadline`, the state of not answering.
    pub(super) fn collect(&mut self, deadline: Duration) -> GpuReading {
        let Some((number, since)) = self.asked else {
            return unknown(&self.identity, "it was not asked".to_owned());
        };
        let Some(mut reading) = self.answer(number, deadline.saturating_sub(since.elapsed())) else {
            let reason = format!(
                "the NVIDIA driver has not answered for {} ms",
                since.elapsed().as_millis()
            );
            return unknown(&self.identity, reason);
        };
        let asked_ns = monotonic_ns().saturating_sub(nanoseconds(since.elapsed()));
        let late = Duration::from_nanos(reading.read_at_ns.unwrap_or(asked_ns).saturating_sub(asked_ns));
        if late > deadline {
            // It waited somewhere and was read between the ends of two intervals: it covers neither.
            self.late = Some(late);
            reading.energy_uj = Err(format!("the NVIDIA driver answered after {} ms only", late.as_millis()));
            return reading;
        }
        if let Some(late) = self.late.take() {
            reading.energy_uj = Err(format!(
                "the NVIDIA driver answers again after {} ms: the energy of this interval is not complete",
                late.as_millis()
            ));
        }
        reading
    }

    fn answer(&mut self, wanted: u64, patience: Duration) -> Option<GpuReading> {
        let start = Instant::now();
        loop {
            let (number, reading) = self
                .readings
                .recv_timeout(patience.saturating_sub(start.elapsed()))
                .ok()?;
            if number == wanted {
                self.asked = None;
                return Some(reading);
            }
        }
    }

    /// Asks the thread to end.
    pub(super) fn end(&mut self) {
        self.requests = None;
    }

    /// Waits until the thread has ended, unless it hangs anyway.
    pub(super) fn wait(&mut self, patience: Duration) {
        let start = Instant::now();
        let hangs = self.asked.is_some();
        while !hangs
            && let Some(left) = patience.checked_sub(start.elapsed())
            && self.readings.recv_timeout(left).is_ok()
        {}
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn serve(nvml: &Nvml, identity: Identity, requests: &Receiver<u64>, readings: &Sender<(u64, GpuReading)>) {
    let period = match identity.source {
        MeterSource::NvmlPower => POWER_PERIOD,
        _ => PROCESS_PERIOD,
    };
    let mut reader = Reader::new(nvml, identity);
    let mut due = Instant::now() + period;
    loop {
        match requests.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(number) => {
                if readings.send((number, reader.take())).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                reader.poll();
                due = Instant::now() + period;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
