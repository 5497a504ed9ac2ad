//! `portway connect --stdio`: one connection over standard input and output, as ssh's `ProxyCommand` wants it.

use std::process::ExitCode;

use portway_gateway::client;
use tokio::io;

use crate::keyring::Keyring;
use crate::signals::Signals;

/// Copies until the service has said all, whether or not somebody still has something to say to it: as a
/// program ends whose reader has gone.
pub(super) async fn run(keyring: &Keyring) -> anyhow::Result<ExitCode> {
    let service = keyring.service()?;
    let target = keyring.target(&service)?;
    let mut signals = Signals::hear()?;
    let piped = async {
        let session = client::connect(&target).await?;
        let joined = session.join(io::stdin(), &mut io::stdout()).await;
        session.close().await;
        joined
    };
    tokio::select! {
        outcome = piped => match outcome {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(keyring.failure(&service, &error).into()),
        },
        asked = signals.end() => Ok(asked.code()),
    }
}
