//! An emulated link: a virtual Ethernet device at each end, and a thread for each direction that moves
//! frames as a [`Line`](super::line) says. For kernels that cannot delay and lose packets themselves.
//!
//! Ends when dropped, and its devices with it.

use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::NetworkError;
use super::line::Line;
use super::namespace::Namespace;
use crate::spec::Impairment;

/// Frames taken before those that have arrived are sent on.
const BATCH: usize = 32;

/// Largest frame: what a device takes by default, and its Ethernet header.
const MAX_FRAME: usize = 2048;

/// A running link.
#[derive(Debug)]
pub(crate) struct Link {
    impairment: Arc<Mutex<Impairment>>,
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Makes the device `near.1` in the namespace `near.0`, the other at `far`, and starts.
    pub(crate) fn start(
        near: (&Namespace, &str),
        far: (&Namespace, &str),
        impairment: Impairment,
    ) -> Result<Self, NetworkError> {
        let device = |(namespace, name): (&Namespace, &str)| {
            namespace.run(|| {
                let device = DeviceBuilder::new()
                    .name(name)
                    .layer(Layer::L2)
                    .enable(false)
                    .build_sync()
                    .map_err(NetworkError::Device)?;
                device.set_nonblocking(true).map_err(NetworkError::Device)?;
                Ok(Arc::new(device))
            })
        };
        let (near, far) = (device(near)?, device(far)?);
        let impairment = Arc::new(Mutex::new(impairment));
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = Arc::new(stop.map_err(|errno| NetworkError::Device(errno.into()))?);
        let mut link = Self {
            impairment,
            stop,
            threads: Vec::new(),
        };
        for (from, to) in [(near.clone(), far.clone()), (far, near)] {
            let direction = Direction {
                from,
                to,
                impairment: link.impairment.clone(),
                stop: link.stop.clone(),
                started: Instant::now(),
                random: Random::new(),
            };
            let thread = std::thread::Builder::new()
                .name("link".to_owned())
                .spawn(move || direction.run())
                .map_err(NetworkError::Device)?;
            link.threads.push(thread);
        }
        Ok(link)
    }

    /// From now on it does this to packets.
    pub(crate) fn impair(&self, impairment: Impairment) {
        *self
            .impairment
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = impairment;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Neither can fail: nobody else counts, and no thread of ours panics.
        self.stop.write(1).unwrap_or_default();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

struct Direction {
    from: Arc<SyncDevice>,
    to: Arc<SyncDevice>,
    impairment: Arc<Mutex<Impairment>>,
    stop: Arc<EventFd>,
    started: Instant,
    random: Random,
}

impl Direction {
    fn run(mut self) {
        let mut line = Line::default();
        let mut frame = [0; MAX_FRAME];
        loop {
            let impairment = self
                .impairment
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            for _ in 0..BATCH {
                match self.from.recv(&mut frame) {
                    Ok(length) => {
                        let now = self.started.elapsed();
                        let random = || self.random.next();
                        line.push(&frame[..length], &impairment, now, random);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The device is down, which a lab may well do to it: it comes up again.
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(1));
                        break;
                    }
                }
            }
            while let Some(frame) = line.pop(self.started.elapsed()) {
                // A device that is down, or full, loses frames as a real one does.
                drop(self.to.send(&frame));
            }
            let wait = line
                .next()
                .map(|next| next.saturating_sub(self.started.elapsed()));
            if self.stopped(wait) {
                return;
            }
        }
    }

    /// Waits for frames, or until time has passed.
    fn stopped(&self, wait: Option<Duration>) -> bool {
        let mut descriptors = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        let polled = ppoll(&mut descriptors, wait.map(TimeSpec::from), None);
        let events = |n: usize| descriptors[n].any().unwrap_or(true);
        // An interrupted wait is one that ended early.
        polled.is_ok() && events(1)
    }
}

/// Evenly spread numbers from 0 to 1: xorshift64*, which is good enough to lose packets by.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system provides randomness");
        Self(u64::from_ne_bytes(seed) | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
        let number = bits as f64 / (1_u64 << 53) as f64;
        number
    }
}
