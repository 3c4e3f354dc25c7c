//! Where the programs and images of a cluster are.

use std::path::{Path, PathBuf};

use super::error::KubernetesError;

/// The image of the agent, as `make lab-cluster-image` names it.
const AGENT_IMAGE: &str = "debug/pairway.tar";

/// The same of the build after this one.
const NEXT_IMAGE: &str = "debug/pairway-next.tar";

/// Programs and images that were built before.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// Where cargo puts what it builds.
    target: PathBuf,
    /// `KUBEBUILDER_ASSETS`: what is here goes before what we have built.
    assets: Option<PathBuf>,
}

impl Programs {
    /// Those of `make kubernetes`.
    pub(super) fn built() -> Result<Self, KubernetesError> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let programs = Self { target, assets };
        let missing = [programs.program("kubelet"), programs.program("kube-apiserver"), programs.images()]
            .into_iter()
            .find(|path| !path.exists());
        missing.map_or(Ok(programs), |path| Err(KubernetesError::NotBuilt { path, target: "kubernetes" }))
    }

    /// A program of Kubernetes, or etcd.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let given = self.assets.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        given.unwrap_or_else(|| self.target.join("kubernetes").join(name))
    }

    /// Archives of what the cluster's own pods run.
    pub(super) fn images(&self) -> PathBuf {
        self.target.join("kubernetes/images")
    }

    /// The archive of the agent.
    pub(super) fn agent_image(&self) -> PathBuf {
        self.target.join(AGENT_IMAGE)
    }

    /// The archive of the build after this one.
    pub(super) fn next_image(&self) -> PathBuf {
        self.target.join(NEXT_IMAGE)
    }
}
