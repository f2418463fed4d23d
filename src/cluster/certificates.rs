//! Who belongs to a cluster: a certificate authority of its own, and one certificate for all its processes.
//!
//! The authority's key is forgotten once it has signed, so that the folder can admit nobody else. Whoever can read
//! `node.key` is a process of this cluster: to add a machine, copy the folder to it (or share the data directory).

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The one name in every certificate; which process it is, the greeting says.
pub(super) const NAME: &str = "process.taktline.internal";

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "node.pem";
const KEY: &str = "node.key";

/// Both roles of a process, each with its own certificate and the authority that the other side must come from.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl Certificates {
    /// Loads the certificates of `folder`, which are made first when there is no such folder.
    ///
    /// # Errors
    /// Files that can't be written or read, or aren't certificates.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        if !folder.try_exists()? {
            make(folder).with_context(|| format!("certificates in {}", folder.display()))?;
        }
        load(folder).with_context(|| {
            let folder = folder.display();
            format!(
                "certificates in {folder} (remove the folder to have new ones made, or copy it from another machine)"
            )
        })
    }
}

fn load(folder: &Path) -> anyhow::Result<Certificates> {
    let authority = certificate(&folder.join(AUTHORITY))?;
    let own = vec![certificate(&folder.join(CERTIFICATE))?];
    let key_file = folder.join(KEY);
    let key = PrivateKeyDer::from_pem_file(&key_file).with_context(|| key_file.display().to_string())?;

    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let peers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(peers)
        .with_single_cert(own.clone(), key.clone_key())?;
    // A link is never resumed: a process that comes back is greeted as a new one.
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)?;
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Certificates {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

fn certificate(file: &Path) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).with_context(|| file.display().to_string())
}

/// Beside first, then renamed: two supervisors that start together on a shared directory end with one authority.
fn make(folder: &Path) -> anyhow::Result<()> {
    let parent = folder.parent().context("has no parent folder")?;
    std::fs::create_dir_all(parent)?;
    let beside = beside(folder);
    std::fs::DirBuilder::new().mode(0o700).create(&beside)?;
    write_all(&beside)?;
    match std::fs::rename(&beside, folder) {
        Ok(()) => Ok(std::fs::File::open(parent)?.sync_all()?),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(std::fs::remove_dir_all(&beside)?),
        Err(error) => Err(error.into()),
    }
}

fn beside(folder: &Path) -> PathBuf {
    // Machines that share the directory may use the same pid.
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    folder.with_extension(format!("{}-{nanos}", std::process::id()))
}

fn write_all(folder: &Path) -> anyhow::Result<()> {
    // Valid from 1975 to 4096, rcgen's default: a machine's clock may be wrong, and nobody renews them.
    let mut authority = CertificateParams::default();
    let authority_key = KeyPair::generate()?;
    // Named by its key, so that a foreign certificate is refused as one of an unknown authority, not as a damaged one.
    let id: String = authority_key
        .public_key_raw()
        .iter()
        .rev()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    authority
        .distinguished_name
        .push(DnType::CommonName, format!("Taktline cluster {id}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_certificate = authority.self_signed(&authority_key)?;

    let mut node = CertificateParams::new([NAME.to_owned()])?;
    node.distinguished_name.push(DnType::CommonName, NAME);
    node.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let node_key = KeyPair::generate()?;
    let node_certificate = node.signed_by(&node_key, &Issuer::from_params(&authority, &authority_key))?;

    for (name, text) in [
        (AUTHORITY, authority_certificate.pem()),
        (CERTIFICATE, node_certificate.pem()),
        (KEY, node_key.serialize_pem()),
    ] {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("deep/certificates");
        Certificates::open(&folder).unwrap();
        let before = std::fs::read(folder.join(KEY)).unwrap();
        for name in [AUTHORITY, CERTIFICATE, KEY] {
            let mode = std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        Certificates::open(&folder).unwrap();
        assert_eq!(std::fs::read(folder.join(KEY)).unwrap(), before);
        assert_eq!(
            std::fs::read_dir(dir.path().join("deep")).unwrap().count(),
            1,
            "nothing is left beside"
        );
    }

    #[test]
    fn made_by_two_at_once_is_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("certificates");
        make(&folder).unwrap();
        let before = std::fs::read(folder.join(KEY)).unwrap();
        make(&folder).unwrap();
        assert_eq!(std::fs::read(folder.join(KEY)).unwrap(), before);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "the loser's are removed"
        );
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("certificates");
        Certificates::open(&folder).unwrap();
        std::fs::write(folder.join(CERTIFICATE), "not a certificate").unwrap();
        let error = format!("{:#}", Certificates::open(&folder).unwrap_err());
        assert!(error.contains(CERTIFICATE), "{error}");
    }
}
