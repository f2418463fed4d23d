//! The way to the mail server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Identity, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use sha2::{Digest, Sha256};

use super::Security;
use super::notice::Waiting;
use crate::tls::TlsConfig;

/// A server, and from whom to whom.
#[derive(Clone)]
pub(super) struct Post {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub tls: TlsConfig,
    pub sign_in: Option<(String, String)>,
    pub sender: Mailbox,
    pub to: Vec<Mailbox>,
    pub timeout: Duration,
}

impl Post {
    /// The server, for messages.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Sees that the files of `tls` can be read.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.transport().map(drop).context("`tls`")
    }

    /// Sends one mail for all that wait.
    ///
    /// # Errors
    /// Why not; the words name the setting to check.
    pub(super) fn send(&self, waiting: &Waiting, sink: &str) -> Result<(), String> {
        let (subject, text) = waiting.mail();
        // The same rows have the same id, so that a mailbox that knows it shows a repeated mail once.
        let id = Sha256::digest(format!("{sink}\n{}\n{subject}\n{text}", waiting.count));
        let id: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut message = Message::builder()
            .from(self.sender.clone())
            .subject(subject)
            .message_id(Some(format!("<{id}@taktline>")))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        let message = message
            .body(text)
            .map_err(|e| format!("the mail can't be written: {e}"))?;
        let transport = self.transport().map_err(|e| format!("{e:#}"))?;
        transport.send(&message).map(drop).map_err(|error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                let said = error.to_string();
                if !text.contains(&said) {
                    text = format!("{text}: {said}");
                }
                cause = error.source();
            }
            match error.status().map(|code| code.to_string()) {
                Some(code) if matches!(code.as_str(), "530" | "534" | "535" | "538") => {
                    format!("the sign-in was refused: {text}; check `user` and `password`")
                }
                Some(_) if error.is_permanent() => format!("the mail was refused: {text}; check `to` and `sender`"),
                _ if error.is_tls() || text.contains("certificate") => format!("{text}; check `security` and `tls`"),
                _ if error.is_client() => format!("{text}; check `security`, `user` and `password`"),
                _ => text,
            }
        })
    }

    fn transport(&self) -> anyhow::Result<SmtpTransport> {
        let tls = match self.security {
            Security::None => Tls::None,
            Security::Starttls => Tls::Required(self.parameters()?),
            Security::Tls => Tls::Wrapper(self.parameters()?),
        };
        let mut builder = SmtpTransport::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(self.timeout));
        if let Some((user, password)) = &self.sign_in {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(builder.build())
    }

    fn parameters(&self) -> anyhow::Result<TlsParameters> {
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.tls.ca {
            let ca = Certificate::from_pem(&read(path)?).with_context(|| path.display().to_string())?;
            builder = builder
                .certificate_store(CertificateStore::None)
                .add_root_certificate(ca);
        }
        if let (Some(certificate), Some(key)) = (&self.tls.certificate, &self.tls.key) {
            let identity = Identity::from_pem(&read(certificate)?, &read(key)?);
            builder = builder.identify_with(identity.with_context(|| certificate.display().to_string())?);
        }
        Ok(builder.build()?)
    }
}
