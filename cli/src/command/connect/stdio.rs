//! `portway connect --stdio`: one connection over standard input and output, as ssh's `ProxyCommand` wants it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portway_gateway::client;
use portway_gateway::limits::activity::Activity;
use tokio::io;

use crate::keyring::Keyring;
use crate::signals::Signals;

/// Copies until the service has said all, whether or not somebody still has something to say to it: as a
/// program ends whose reader has gone. It is cut off when nothing went either way for so long.
pub(super) async fn run(
    keyring: &Keyring,
    idle_timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let service = keyring.service()?;
    let target = keyring.target(&service)?;
    let mut signals = Signals::hear()?;
    let piped = async {
        let session = client::connect(&target).await?;
        let activity = Activity::begin();
        let input = activity.clone().watch(io::stdin());
        let mut output = activity.clone().watch(io::stdout());
        let joined = session.join(input, &mut output);
        let joined = activity.unless_idle(idle_timeout, joined).await;
        session.close().await;
        Ok(joined)
    };
    tokio::select! {
        outcome = piped => match outcome {
            Ok(Ok(Ok(()))) => Ok(ExitCode::SUCCESS),
            Ok(Err(idle)) => Err(idle).context("the connection was cut off (--idle-timeout)"),
            Ok(Ok(Err(error))) | Err(error) => Err(keyring.failure(&service, &error).into()),
        },
        asked = signals.end() => Ok(asked.code()),
    }
}
