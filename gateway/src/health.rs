//! Whether services work: an active check of each, every few seconds.

use std::time::Duration;

use portway_protocol::signal::ServiceHealth;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::service::{Service, Services};

/// Time between checks of a service.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Failures in a row after which a service is unhealthy: one may be chance.
const FAILURES: u32 = 2;

/// Checks all services until cancelled; notifies `changed` when a result is news. A service that
/// accepts connections is healthy: what it answers is between it and its visitors. Of one that speaks UDP,
/// or is its client's, nobody can say.
pub(crate) async fn watch(services: Services, changed: watch::Sender<()>) {
    let mut failures = std::collections::HashMap::new();
    let mut ticks = tokio::time::interval(CHECK_INTERVAL);
    loop {
        ticks.tick().await;
        let mut checks = JoinSet::new();
        for service in services.all() {
            checks.spawn(async move {
                let alive = service.is_there().await;
                (service, alive)
            });
        }
        while let Some(check) = checks.join_next().await {
            match check {
                Ok((_unknown, None)) => {}
                Ok((service, Some(alive))) => {
                    let failed = failures.entry(service.spec.name.clone()).or_insert(0_u32);
                    *failed = if alive { 0 } else { failed.saturating_add(1) };
                    note(&service, *failed, &changed);
                }
                Err(error) => tracing::error!(%error, "a health check panicked"),
            }
        }
    }
}

fn note(service: &Service, failures: u32, changed: &watch::Sender<()>) {
    let health = match failures {
        0 => ServiceHealth::Healthy,
        1..FAILURES if service.health() == ServiceHealth::Healthy => return,
        _ => ServiceHealth::Unhealthy,
    };
    if service.set_health(health) {
        tracing::info!(service = %service.spec.name, ?health, "health changed");
        changed.send_replace(());
    }
}
