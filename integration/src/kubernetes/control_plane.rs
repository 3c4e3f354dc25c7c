//! etcd, API server, controller manager and scheduler, all in one node.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::KubernetesError;
use super::pki::{self, Authority};
use super::{API_SERVICE, SERVICES, Site, start};
use crate::eventually::eventually;
use crate::lab::{Lab, Node, Running};

/// How long the API server may take to answer, and nodes to register: far beyond what a busy machine needs.
const START_LIMIT: Duration = Duration::from_secs(180);

/// Folder of the control plane in the cluster's.
const FOLDER: &str = "control-plane";

/// Lines of a log that are shown when its program has ended.
const LOG_TAIL: usize = 12;

/// The control plane.
#[derive(Debug)]
pub(super) struct ControlPlane {
    // Clients of the API server end before it: fields are dropped in this order.
    scheduler: Option<Running>,
    controller_manager: Option<Running>,
    api_server: Option<Running>,
    etcd: Option<Running>,
    /// Command lines of what is started again.
    api_server_words: Vec<String>,
    controller_manager_words: Vec<String>,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

impl ControlPlane {
    pub(super) fn start(
        site: &Site,
        authority: &Authority,
        node: &Node,
        addresses: &[IpAddr],
    ) -> Result<Self, KubernetesError> {
        let folder = site.folder.join(FOLDER);
        fs::create_dir_all(&folder).map_err(KubernetesError::file(&folder))?;
        let ca = site.authority();
        authority.write(&ca)?;
        let at = |name: &str| folder.join(name).display().to_string();
        let program = |name: &str| site.programs.program(name).display().to_string();
        let kubeconfig = |name: &str, user: &str, group: Option<&str>| -> Result<PathBuf, KubernetesError> {
            let path = folder.join(format!("{name}.kubeconfig"));
            pki::kubeconfig(&path, &site.server, &ca, &authority.client(&folder, user, group)?)?;
            Ok(path)
        };

        let etcd = words(
            &program("etcd"),
            &[
                ("data-dir", at("etcd")),
                ("listen-client-urls", "http://127.0.0.1:2379".into()),
                ("advertise-client-urls", "http://127.0.0.1:2379".into()),
                ("listen-peer-urls", "http://127.0.0.1:2380".into()),
                ("log-level", "warn".into()),
                // The cluster is thrown away: nothing is gained by waiting for a disk.
                ("unsafe-no-fsync", "true".into()),
            ],
        );
        let etcd = start(node, &etcd, &folder.join("etcd.log"))?;

        pki::bare_key(&folder.join("service-accounts.key"), &folder.join("service-accounts.pub"))?;
        let mut own: Vec<IpAddr> = addresses.to_vec();
        own.push(IpAddr::from([127, 0, 0, 1]));
        own.extend(API_SERVICE.parse::<IpAddr>());
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let serving = authority.server(&folder, "kube-apiserver", &names, &own)?;
        let kubelet = authority.client(&folder, "kube-apiserver-kubelet-client", Some("system:masters"))?;
        let ca = ca.display().to_string();
        let api_server_words = words(
            &program("kube-apiserver"),
            &[
                ("etcd-servers", "http://127.0.0.1:2379".into()),
                ("advertise-address", addresses[0].to_string()),
                ("client-ca-file", ca.clone()),
                ("tls-cert-file", serving.certificate.display().to_string()),
                ("tls-private-key-file", serving.key.display().to_string()),
                ("kubelet-certificate-authority", ca.clone()),
                ("kubelet-client-certificate", kubelet.certificate.display().to_string()),
                ("kubelet-client-key", kubelet.key.display().to_string()),
                ("kubelet-preferred-address-types", "InternalIP".into()),
                ("service-account-key-file", at("service-accounts.pub")),
                ("service-account-signing-key-file", at("service-accounts.key")),
                ("service-account-issuer", "https://kubernetes.default.svc".into()),
                ("authorization-mode", "Node,RBAC".into()),
                ("enable-admission-plugins", "NodeRestriction".into()),
                ("service-cluster-ip-range", SERVICES.join(",")),
                ("allow-privileged", "true".into()),
            ],
        );

        let admin = kubeconfig("admin", "admin", Some("system:masters"))?;
        let mut control_plane = Self {
            scheduler: None,
            controller_manager: None,
            api_server: None,
            etcd: Some(etcd),
            api_server_words,
            controller_manager_words: Vec::new(),
            kubectl: site.programs.program("kubectl"),
            kubeconfig: admin,
            folder: folder.clone(),
        };
        control_plane.start_api_server(node)?;

        let manager = kubeconfig("kube-controller-manager", "system:kube-controller-manager", None)?;
        let scheduler = kubeconfig("kube-scheduler", "system:kube-scheduler", None)?;
        control_plane.controller_manager_words = words(
            &program("kube-controller-manager"),
            &[
                ("kubeconfig", manager.display().to_string()),
                ("use-service-account-credentials", "true".into()),
                ("root-ca-file", ca),
                ("service-account-private-key-file", at("service-accounts.key")),
                ("leader-elect", "false".into()),
                // A node whose power is cut is to be seen within a test's patience.
                ("node-monitor-grace-period", "20s".into()),
            ],
        );
        let scheduler = words(
            &program("kube-scheduler"),
            &[("kubeconfig", scheduler.display().to_string()), ("leader-elect", "false".into())],
        );
        control_plane.start_controller_manager(node)?;
        control_plane.scheduler = Some(start(node, &scheduler, &folder.join("kube-scheduler.log"))?);
        Ok(control_plane)
    }

    fn start_controller_manager(&mut self, node: &Node) -> Result<(), KubernetesError> {
        let log = self.folder.join("kube-controller-manager.log");
        self.controller_manager = Some(start(node, &self.controller_manager_words, &log)?);
        Ok(())
    }

    /// Starts the controller manager again, as one that gives every Node a CIDR of each family out of these.
    pub(super) fn give_out_pod_cidrs(&mut self, node: &Node, pods: &str) -> Result<(), KubernetesError> {
        if let Some(mut running) = self.controller_manager.take() {
            // It may have ended by itself: that is as good.
            let _ = running.end(Signal::SIGTERM);
        }
        self.controller_manager_words.extend([
            "--allocate-node-cidrs=true".to_owned(),
            "--configure-cloud-routes=false".to_owned(),
            format!("--cluster-cidr={pods}"),
            // As long as the blocks of the pools are.
            "--node-cidr-mask-size-ipv4=24".to_owned(),
            "--node-cidr-mask-size-ipv6=64".to_owned(),
        ]);
        self.start_controller_manager(node)
    }

    pub(super) fn start_api_server(&mut self, node: &Node) -> Result<(), KubernetesError> {
        let log = self.folder.join("kube-apiserver.log");
        let mut running = start(node, &self.api_server_words, &log)?;
        eventually("the API server to answer", START_LIMIT, || {
            if !running.is_running() {
                return Ok(false);
            }
            self.kubectl(node, &["get", "--raw", "/readyz"]).map(|_| true)
        })?
        .then_some(())
        .ok_or_else(|| KubernetesError::Ended {
            program: "kube-apiserver".to_owned(),
            said: Lab::tail(&log, LOG_TAIL),
            log,
        })?;
        self.api_server = Some(running);
        Ok(())
    }

    /// Kills the API server.
    pub(super) fn stop_api_server(&mut self) {
        if let Some(mut running) = self.api_server.take() {
            // It may have ended by itself: that is as good.
            let _ = running.end(Signal::SIGKILL);
        }
    }

    /// Waits until these nodes are there.
    pub(super) fn registered(&self, node: &Node, names: &[String]) -> Result<(), KubernetesError> {
        let get: Vec<&str> =
            ["get", "--output=name", "node"].into_iter().chain(names.iter().map(String::as_str)).collect();
        eventually("every node to register itself", START_LIMIT, || self.kubectl(node, &get))?;
        Ok(())
    }

    pub(super) fn command(&self, node: &Node, arguments: &[&str]) -> Command {
        let mut command = node.command(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    pub(super) fn kubectl(&self, node: &Node, arguments: &[&str]) -> Result<String, KubernetesError> {
        let fail = |problem: String| KubernetesError::Answer {
            command: format!("kubectl {}", arguments.join(" ")),
            problem,
        };
        let output = self
            .command(node, arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|err| fail(err.to_string()))?;
        if !output.status.success() {
            return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// From now on it outlives this value.
    pub(super) fn leave(&mut self) {
        let all =
            [self.scheduler.take(), self.controller_manager.take(), self.api_server.take(), self.etcd.take()];
        all.into_iter().flatten().for_each(Running::leave);
    }
}

/// The administrator's kubeconfig of the cluster in this folder.
pub(super) fn admin(cluster: &Path) -> PathBuf {
    cluster.join(FOLDER).join("admin.kubeconfig")
}

/// A command line.
fn words(program: &str, flags: &[(&str, String)]) -> Vec<String> {
    let flags = flags.iter().map(|(flag, value)| format!("--{flag}={value}"));
    std::iter::once(program.to_owned()).chain(flags).collect()
}

impl Site {
    /// The cluster's authority, as a file.
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The folder of a machine.
    pub(super) fn machine(&self, node: &str) -> PathBuf {
        self.folder.join(Path::new(node))
    }
}
