//! A thread for each GPU: calls into NVML block, and with a sick driver they may never return.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::Nvml;
use tokio::sync::Notify;

use super::{
    library::KnownGpu,
    reader::{Reader, unknown},
};
use crate::{interval::GpuReading, sources::clock::monotonic_ns};

/// The thread of one GPU, as seen from outside.
///
/// Requests can follow each other faster than the driver answers, where a border comes right after another: each has
/// its own answer, in order.
pub(super) struct Worker {
    identity: KnownGpu,
    /// `None` once it is asked to end.
    requests: Option<Sender<u64>>,
    readings: Receiver<(u64, GpuReading)>,
    /// Number of the newest request.
    number: u64,
    /// Answers that nobody has collected yet, oldest first.
    answers: VecDeque<(u64, GpuReading)>,
    /// The newest request that was given up for want of an answer, and when the oldest of them was made. Until it is
    /// answered nothing is asked and nothing is waited for.
    given_up: Option<(u64, Instant)>,
    /// An answer came too late, so the next one does not cover its interval: how long it was late.
    late: Option<Duration>,
}

/// A reading that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// `None`: the thread hangs in an earlier one.
    number: Option<u64>,
    /// Since when there is no answer.
    since: Instant,
}

impl Worker {
    /// `answered` is told of every answer.
    pub(super) fn start(nvml: Arc<Nvml>, identity: KnownGpu, answered: Arc<Notify>) -> std::io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let (answers, readings) = mpsc::channel();
        let of_thread = identity.clone();
        thread::Builder::new()
            .name(format!("dlpm-gpu-{}", identity.index))
            .spawn(move || {
                serve(&nvml, of_thread, &asked, &answers, &answered);
                // In this order: whoever waits for the channel to close finds the library closed.
                drop(nvml);
                drop(answers);
            })?;
        Ok(Self {
            identity,
            requests: Some(requests),
            readings,
            number: 0,
            answers: VecDeque::new(),
            given_up: None,
            late: None,
        })
    }

    pub(super) fn identity(&self) -> &KnownGpu {
        &self.identity
    }

    /// Asks for a reading, unless the thread hangs in an earlier one.
    pub(super) fn request(&mut self) -> Asked {
        self.receive(Duration::ZERO);
        if let Some((_, since)) = self.given_up {
            return Asked { number: None, since };
        }
        self.number += 1;
        if let Some(requests) = &self.requests {
            // A thread that is gone shows when it does not answer.
            let _ = requests.send(self.number);
        }
        Asked {
            number: Some(self.number),
            since: Instant::now(),
        }
    }

    /// Whether [`Self::collect`] would not wait.
    pub(super) fn is_ready(&mut self, asked: Asked, deadline: Duration) -> bool {
        self.receive(Duration::ZERO);
        let answered = |number| self.answers.iter().any(|(answered, _)| *answered == number);
        self.given_up.is_some() || asked.since.elapsed() >= deadline || asked.number.is_none_or(answered)
    }

    /// The reading that was asked for; without an answer by `deadline`, the state of not answering.
    pub(super) fn collect(&mut self, asked: Asked, deadline: Duration) -> GpuReading {
        let since = asked.since;
        let Some(mut reading) = asked.number.and_then(|number| self.answer(number, since, deadline)) else {
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
        self.identity.source = reading.source;
        if let Some(late) = self.late.take() {
            reading.energy_uj = Err(format!(
                "the NVIDIA driver answers again after {} ms: the energy of this interval is not complete",
                late.as_millis()
            ));
        }
        reading
    }

    fn answer(&mut self, wanted: u64, since: Instant, deadline: Duration) -> Option<GpuReading> {
        loop {
            // What is older was given up: nobody comes for it.
            while let Some((number, reading)) = self.answers.pop_front_if(|(number, _)| *number <= wanted) {
                if number == wanted {
                    return Some(reading);
                }
            }
            let patience = match self.given_up {
                None => deadline.saturating_sub(since.elapsed()),
                Some(_) => Duration::ZERO,
            };
            if !self.receive(patience) {
                let oldest = self.given_up.map_or(since, |(_, oldest)| oldest);
                self.given_up = Some((wanted, oldest));
                return None;
            }
        }
    }

    /// Takes the answers that are there, and waits for one at most so long where there is none: whether there was one.
    fn receive(&mut self, patience: Duration) -> bool {
        let mut patience = patience;
        let mut received = false;
        while let Ok((number, reading)) = self.readings.recv_timeout(patience) {
            patience = Duration::ZERO;
            received = true;
            match self.given_up {
                Some((newest, since)) if number <= newest => {
                    self.late = Some(since.elapsed());
                    self.given_up = self.given_up.filter(|_| number < newest);
                }
                _ => self.answers.push_back((number, reading)),
            }
        }
        received
    }

    /// Asks the thread to end.
    pub(super) fn end(&mut self) {
        self.requests = None;
    }

    /// Waits until the thread has ended, unless it hangs anyway.
    pub(super) fn wait(&mut self, patience: Duration) {
        let start = Instant::now();
        let hangs = self.given_up.is_some();
        while !hangs
            && let Some(left) = patience.checked_sub(start.elapsed())
            && self.readings.recv_timeout(left).is_ok()
        {}
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn serve(
    nvml: &Nvml,
    identity: KnownGpu,
    requests: &Receiver<u64>,
    readings: &Sender<(u64, GpuReading)>,
    answered: &Notify,
) {
    let mut reader = Reader::new(nvml, identity);
    // Now, so that a counter that does not move shows as early as can be.
    let mut due = Instant::now();
    loop {
        match requests.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(number) => {
                // Borders that came while the last reading was made have one reading, or the last of many would be
                // late by all of them.
                let others: Vec<u64> = requests.try_iter().collect();
                let reading = reader.take();
                let nothing_since = nothing_since(&reading);
                let again = others.into_iter().map(|number| (number, nothing_since.clone()));
                for answer in [(number, reading)].into_iter().chain(again) {
                    if readings.send(answer).is_err() {
                        return;
                    }
                }
                answered.notify_one();
            }
            Err(RecvTimeoutError::Timeout) => {
                due = Instant::now() + reader.poll();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The reading of an interval that ends with the same reading that it begins with.
fn nothing_since(reading: &GpuReading) -> GpuReading {
    let mut nothing = reading.clone();
    nothing.energy_uj = nothing.energy_uj.map(|_| 0);
    nothing.dropped_samples = 0;
    for process in &mut nothing.processes {
        process.sm_percent_us = 0;
    }
    nothing
}
