//! Certificates of a cluster: one authority for all of it, and who is who.
//!
//! Names and groups are those of Kubernetes' documentation ("PKI certificates and requirements").

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::error::KubernetesError;

/// Who signs.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

/// A key and its certificate, as files.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    pub(super) fn new() -> Result<Self, KubernetesError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pairway-lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Writes the authority's own certificate to a file.
    pub(super) fn write(&self, path: &Path) -> Result<(), KubernetesError> {
        fs::write(path, self.issuer.pem()).map_err(KubernetesError::file(path))
    }

    /// Somebody who calls, as a user of these groups.
    pub(super) fn client(
        &self,
        folder: &Path,
        user: &str,
        group: Option<&str>,
    ) -> Result<Identity, KubernetesError> {
        self.issue(folder, user, group, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Somebody who answers under these names and addresses.
    pub(super) fn server(
        &self,
        folder: &Path,
        user: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity, KubernetesError> {
        let names: Vec<String> =
            names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string)).collect();
        self.issue(folder, user, None, &names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(
        &self,
        folder: &Path,
        user: &str,
        group: Option<&str>,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, KubernetesError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let suffix = if usage == ExtendedKeyUsagePurpose::ServerAuth { "server" } else { "client" };
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let stem = format!("{}-{suffix}", user.replace([':', '/'], "-"));
        let identity = Identity {
            certificate: folder.join(format!("{stem}.crt")),
            key: folder.join(format!("{stem}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())
            .map_err(KubernetesError::file(&identity.certificate))?;
        write_key(&identity.key, &key)?;
        Ok(identity)
    }
}

/// Writes a key that nobody has signed, and its public half: tokens of service accounts are signed with it.
pub(super) fn bare_key(path: &Path, public: &Path) -> Result<(), KubernetesError> {
    let key = KeyPair::generate()?;
    write_key(path, &key)?;
    fs::write(public, key.public_key_pem()).map_err(KubernetesError::file(public))
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), KubernetesError> {
    fs::write(path, key.serialize_pem()).map_err(KubernetesError::file(path))
}

/// Writes a kubeconfig.
pub(super) fn kubeconfig(
    path: &Path,
    server: &str,
    authority: &Path,
    identity: &Identity,
) -> Result<(), KubernetesError> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "lab", "user": {
            "client-certificate": identity.certificate, "client-key": identity.key,
        } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        "current-context": "lab",
    });
    // YAML is a superset of JSON.
    fs::write(path, config.to_string()).map_err(KubernetesError::file(path))
}
