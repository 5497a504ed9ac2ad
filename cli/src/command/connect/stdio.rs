//! `portway connect --stdio`: one connection over standard input and output, as ssh's `ProxyCommand` wants it.

use std::process::ExitCode;

use portway_gateway::client::{self, Target};
use tokio::io;

use crate::opened;
use crate::signals::Signals;

/// Copies until the service has said all, whether or not somebody still has something to say to it: as a
/// program ends whose reader has gone.
pub(super) async fn run(target: Target) -> anyhow::Result<ExitCode> {
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
            Err(error) => Err(opened::failure(&error).into()),
        },
        asked = signals.end() => Ok(asked.code()),
    }
}
