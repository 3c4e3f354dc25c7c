//! Where the API server is and who we are: read anew for every connection, so that what was renewed is used.

use std::sync::PoisonError;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{Connected, Kubernetes};
use crate::store::remote::backend::Failure;
use crate::telemetry::chain;

/// A connection stands within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What we write is small.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

impl Kubernetes {
    pub(super) async fn connected(&self) -> Result<Connected, Failure> {
        let known = self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connected) = known {
            return Ok(connected);
        }
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(self.options.silence);
        config.write_timeout = Some(WRITE_WITHIN);
        // Who asks tries again itself, ever more slowly and at random times, and says meanwhile what is wrong. The client would
        // ask a server that has too much to do fifteen times more, from after 5 ms on, or wait for as long as that server likes
        // (`Retry-After`).
        config.default_retry = false;
        let namespace = self.options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Failure::server(format!("the Kubernetes API can't be used: {}", chain(&error)))
        })?;
        let connected = Connected { client, namespace };
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
        Ok(connected)
    }

    /// A file that is named, what a pod is told, `KUBECONFIG`: the first that there is.
    async fn config(&self) -> Result<Config, Failure> {
        let options =
            KubeConfigOptions { context: self.options.context.clone(), ..KubeConfigOptions::default() };
        if let Some(path) = &self.options.kubeconfig {
            let shown = path.display().to_string();
            let path = path.clone();
            let wrong = |why: String| Failure::server(format!("store.kubernetes.kubeconfig: {shown}: {why}"));
            let file = tokio::task::spawn_blocking(move || Kubeconfig::read_from(path))
                .await
                .map_err(|panic| wrong(panic.to_string()))?
                .map_err(|error| wrong(chain(&error)))?;
            return Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| wrong(chain(&error)));
        }
        let in_cluster = match Config::incluster_env() {
            Ok(config) => return Ok(config),
            Err(error) => chain(&error),
        };
        Config::from_kubeconfig(&options).await.map_err(|error| {
            Failure::server(format!(
                "nothing says where the Kubernetes API server is: this is no pod ({in_cluster}), and there is no kubeconfig \
                 ({}); set store.kubernetes.kubeconfig",
                chain(&error)
            ))
        })
    }
}
