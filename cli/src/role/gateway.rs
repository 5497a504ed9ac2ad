//! The gateway part of a process: the services that it offers, and its end.

use portway_gateway::service::{ServiceSpec, Trust};
use portway_gateway::{Gateway, GatewayHandle};
use portway_protocol::id::ServiceName;

use super::Process;
use crate::args::Exposed;
use crate::control::gateway::NewService;
use crate::demo::Demo;
use crate::enrolment::issuer::{self, Issuer};
use crate::enrolment::maker::Maker;
use crate::state::State;
use portway_gateway::enrolment::renewal::Renewal;
use portway_gateway::revocations;

/// Name of the built-in service.
const DEMO: &str = "demo";

/// The services that configuration and command line name; others come and go by `portway expose`.
pub(crate) struct Offered {
    gateway: GatewayHandle,
    services: Vec<Exposed>,
}

impl Offered {
    /// Takes what is named from now on, and nothing that was named and is not any more. What cannot be
    /// offered is left out and logged.
    pub(crate) fn reload(&mut self, wanted: Vec<Exposed>) {
        for old in &self.services {
            if !wanted.iter().any(|service| service.name == old.name) {
                self.gateway.remove_service(&old.name);
            }
        }
        let mut services = Vec::new();
        for service in wanted {
            let is_known = self.services.contains(&service);
            let spec = NewService::from(&service).spec();
            if !is_known && let Err(error) = self.gateway.add_service(spec) {
                tracing::error!(service = %service.name, %error, "a service is left out");
                continue;
            }
            services.push(service);
        }
        self.services = services;
    }
}

impl Process {
    /// Offers services; the demo if there is none. Returns them, and their names.
    pub(crate) async fn offer(
        &mut self,
        gateway: &GatewayHandle,
        services: &[Exposed],
    ) -> anyhow::Result<(Offered, Vec<ServiceName>)> {
        let mut names = Vec::new();
        for service in services {
            gateway.add_service(NewService::from(service).spec())?;
            names.push(service.name.clone());
        }
        if services.is_empty() {
            let demo = Demo::bind().await?;
            let name: ServiceName = DEMO.parse()?;
            gateway.add_service(ServiceSpec {
                name: name.clone(),
                target: format!("http://{}", demo.address()?).parse()?,
                trust: Trust::System,
            })?;
            names.push(name);
            self.tasks.spawn(demo.run(self.cancel.clone()));
        }
        let offered = Offered {
            gateway: gateway.clone(),
            services: services.to_vec(),
        };
        Ok((offered, names))
    }

    /// Renews the certificate of the node as long as it takes requests.
    pub(crate) fn spawn_renewal(&mut self, renewal: Renewal<Maker>) {
        let drain = self.drain.clone();
        self.tasks.spawn(async move {
            renewal.run(drain).await;
            Ok(())
        });
    }

    /// Lets machines join by its gateway.
    pub(crate) async fn spawn_issuer(&mut self, issuer: Issuer) -> anyhow::Result<()> {
        let listener = issuer::bind(&issuer.state).await?;
        issuer.offer_if_awaited()?;
        issuer.publish()?;
        let (publisher, drain) = (issuer.clone(), self.drain.clone());
        self.tasks.spawn(async move {
            publisher.publish_in_time(drain).await;
            Ok(())
        });
        self.tasks
            .spawn(issuer.serve(listener, self.cancel.clone()));
        Ok(())
    }

    /// Runs it until it is to drain; when it has drained, the rest ends. What it hears of revoked nodes is kept.
    pub(crate) fn spawn_gateway(&mut self, gateway: Gateway, state: &State) {
        let (drain, cancel) = (self.drain.clone(), self.cancel.clone());
        let kept = revocations::keep(state.clone(), gateway.handle(), drain.clone());
        self.tasks.spawn(async {
            kept.await;
            Ok(())
        });
        self.tasks.spawn(async move {
            gateway.run(drain).await;
            cancel.cancel();
            Ok(())
        });
    }
}
