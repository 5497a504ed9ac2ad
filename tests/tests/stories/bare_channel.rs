//! A browser and our transport, without anything else.

use portway_tests::bare::Bare;
use portway_tests::browser::Browser;
use portway_tests::upstream::Upstream;

use crate::{BOTH, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, the_first_message_is_never_lost)];

/// Connections to try: every fourth lost it in Firefox, when channels were negotiated.
const CONNECTIONS: usize = 25;

/// What a browser says the moment that its channel opens reaches us.
async fn the_first_message_is_never_lost(browser: &mut Browser) -> anyhow::Result<()> {
    let any_page = Upstream::start().await?;
    browser.open(&any_page.target()).await?;
    for _connection in 0..CONNECTIONS {
        Bare::connect(browser).await?;
    }
    Ok(())
}
