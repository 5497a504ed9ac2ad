//! What is computed of the results: counts, and medians against their bars.

use super::{Attempt, Client, Millis, Outcome, Recovery, Verdict, Way};
use crate::statistics::median;

/// A median time to open may be this long: the reference's figures, rounded up.
const DIRECT_BAR: Millis = Millis(100.0);
const RELAYED_BAR: Millis = Millis(170.0);

/// What a client's matrix comes to.
pub(super) struct ClientSummary {
    pub(super) client: Client,
    pub(super) attempts: usize,
    pub(super) direct: WaySummary,
    pub(super) relayed: WaySummary,
}

/// Those of its pairs that met by one way.
pub(super) struct WaySummary {
    pub(super) count: usize,
    pub(super) median: Option<Millis>,
    /// What the median may be at most.
    pub(super) bar: Millis,
}

/// Results that are as they must be, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) good: usize,
    pub(super) all: usize,
}

impl ClientSummary {
    pub(super) fn of(client: Client, attempts: &[&Attempt]) -> Self {
        Self {
            client,
            attempts: attempts.len(),
            direct: WaySummary::of(attempts, Way::Direct, DIRECT_BAR),
            relayed: WaySummary::of(attempts, Way::Relayed, RELAYED_BAR),
        }
    }

    pub(super) const fn connected(&self) -> usize {
        self.direct.count + self.relayed.count
    }
}

impl WaySummary {
    fn of(attempts: &[&Attempt], wanted: Way, bar: Millis) -> Self {
        let times: Vec<f64> = attempts
            .iter()
            .filter_map(|attempt| match &attempt.outcome {
                Outcome::Connected { way, open } if *way == wanted => Some(open.0),
                Outcome::Connected { .. } | Outcome::Failed { .. } => None,
            })
            .collect();
        Self {
            count: times.len(),
            median: median(&times).map(Millis),
            bar,
        }
    }

    /// Whether the median is at most the bar; of none, nobody knows.
    pub(super) fn is_good(&self) -> Option<bool> {
        self.median.map(|median| median <= self.bar)
    }
}

impl Share {
    pub(super) fn connected(attempts: &[Attempt]) -> Self {
        let good = attempts
            .iter()
            .filter(|attempt| matches!(attempt.outcome, Outcome::Connected { .. }));
        Self {
            good: good.count(),
            all: attempts.len(),
        }
    }

    pub(super) fn recovered(recoveries: &[Recovery]) -> Self {
        let good = recoveries
            .iter()
            .filter(|recovery| recovery.verdict == Verdict::Good);
        Self {
            good: good.count(),
            all: recoveries.len(),
        }
    }

    pub(super) const fn is_all(self) -> bool {
        self.good == self.all
    }
}
