//! How connections are secured: the settings that MQTT, Kafka, webhooks and mail share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::Problem;

/// How a connection is secured.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificates of the authorities to trust. Default: the system's
    pub ca: Option<PathBuf>,
    /// PEM file with our own certificate, for servers that ask for one
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of `certificate`
    pub key: Option<PathBuf>,
}

impl TlsConfig {
    /// What is wrong with the settings, below `path`.
    pub(crate) fn problems(&self, path: &str) -> Vec<Problem> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => vec![Problem::at(&format!("{path}.certificate"), "there is no `key` to it")],
            (None, Some(_)) => vec![Problem::at(&format!("{path}.key"), "there is no `certificate` to it")],
            _ => Vec::new(),
        }
    }

    /// For rustls.
    ///
    /// # Errors
    /// A file can't be read, or isn't what it should be; the message names it.
    pub(crate) fn client(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        Ok(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?
            }
            _ => builder.with_no_client_auth(),
        })
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).with_context(|| path.display().to_string())?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                ensure!(
                    !roots.is_empty(),
                    "the system has no certificates to trust; install ca-certificates or name a file: tls: {{ca: ca.pem}}"
                );
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = || path.display().to_string();
    let found = CertificateDer::pem_file_iter(path).with_context(name)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().with_context(name)?;
    ensure!(!found.is_empty(), "{}: there is no certificate in it", path.display());
    Ok(found)
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| path.display().to_string())
}
