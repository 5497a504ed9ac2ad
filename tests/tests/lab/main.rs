//! Scenarios: what people see of Portway on networks as they are, and of the lab itself.
//!
//! Each needs a lab of its own, and most of a small machine: they come one at a time. What they
//! measure is printed, and kept for `portway-lab report`.

mod cluster;
mod copies;
mod disturbance;
mod life;
mod matrix;
mod networks;
mod recovery;
mod results;
mod throughput;
mod tunnel;
mod udp;

use std::process::ExitCode;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use results::Results;

/// Something that happens to somebody.
struct Scenario {
    name: &'static str,
    run: for<'a> fn(&'a Results) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// A [`Scenario`] of a function.
macro_rules! scenario {
    ($function:ident) => {
        crate::Scenario {
            name: stringify!($function),
            run: |results| Box::pin($function(results)),
        }
    };
}
use scenario;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new()?);
    let results = Arc::new(Results::default());
    let trial = |scenario: &'static Scenario| {
        let (runtime, results) = (runtime.clone(), results.clone());
        Trial::test(scenario.name, move || {
            let outcome = runtime.block_on((scenario.run)(&results));
            outcome.map_err(|error| Failed::from(format!("{error:?}")))
        })
    };
    let scenarios = [
        life::SCENARIOS,
        networks::SCENARIOS,
        cluster::SCENARIOS,
        matrix::SCENARIOS,
        recovery::SCENARIOS,
        tunnel::SCENARIOS,
        udp::SCENARIOS,
        copies::SCENARIOS,
        throughput::SCENARIOS,
    ];
    let trials = scenarios.into_iter().flatten().map(trial);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    results.write()?;
    Ok(conclusion.exit_code())
}
