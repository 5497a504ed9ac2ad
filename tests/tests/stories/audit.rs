//! What somebody does with a service is recorded, and nobody can change that record unseen.

use portway_tests::client::{LinkFile, ping};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;

use crate::{NativeStory, native};

pub(crate) const STORIES: &[NativeStory] = &[native!(a_visit_is_recorded_for_good)];

async fn a_visit_is_recorded_for_good() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    let link = LinkFile::new(&portway.link("app"))?;
    let mut events = portway.follow()?;
    events.next("node_online").await?;
    let granted = events.next("grant_added").await?;
    assert_eq!(granted["services"][0], "app");

    let pinged = ping(&link, &["--count", "1"]).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    let introduced = events.next("session_introduced").await?;
    assert_eq!(introduced["source"], "signaling");
    let opened = events.next("session_opened").await?;
    assert_eq!(
        (&opened["v"], &opened["source"]),
        (&1.into(), &"gateway".into())
    );
    assert_eq!(opened["session"], introduced["session"]);
    assert_eq!(
        (&opened["service"], &opened["grant"]),
        (&"app".into(), &granted["grant"])
    );
    assert_eq!(
        (&opened["path"], &opened["protocol"]),
        (&"direct".into(), &"udp".into())
    );
    assert!(opened["from"].is_string(), "{opened}");
    let ended = events.next("session_ended").await?;
    assert_eq!(ended["session"], opened["session"]);
    assert_eq!(
        (&ended["requests"], &ended["why"]),
        (&1.into(), &"client_left".into())
    );
    assert!(
        ended["sent"].as_u64() > Some(0) && ended["received"].as_u64() > Some(0),
        "{ended}"
    );
    assert_eq!(events.interrupt().await?.code(), Some(130));

    let checked = portway.ask(&["events", "verify"]).await?;
    assert_eq!(
        (&checked["valid"], &checked["head"]),
        (&true.into(), &ended["hash"])
    );
    let path = state.path().join("audit.jsonl");
    let log = std::fs::read_to_string(&path)?;
    std::fs::write(&path, log.replace("\"client_left\"", "\"path_lost\""))?;
    let refused = portway.ask(&["events", "verify"]).await;
    assert!(refused.is_err(), "{refused:?}");
    std::fs::write(&path, log)?;
    portway.ask(&["events", "verify"]).await?;
    Ok(())
}
