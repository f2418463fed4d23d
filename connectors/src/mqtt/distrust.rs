//! What goes wrong between two ends of TLS, in words that name the setting.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// The reason, if TLS is at the bottom of this error.
pub(super) fn reason(error: &(dyn Error + 'static)) -> Option<String> {
    rustls_error(error).map(words)
}

/// The first error of rustls down the chain of causes. An [`io::Error`] hides the one it carries from that chain.
fn rustls_error<'e>(mut error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match carried {
            Some(carried) => carried as &'e (dyn Error + 'static),
            None => error.source()?,
        };
    }
}

fn words(error: &rustls::Error) -> String {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(error) => certificate(error),
        AlertReceived(alert) => refusal(*alert),
        InvalidMessage(_) => {
            "what it answers is not TLS; check the port in `url`, or write mqtt:// for one without TLS".into()
        }
        error => format!("{error}; check `url` and `tls`"),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    match error {
        Expired | ExpiredContext { .. } => "its certificate has expired; it must be renewed at the broker".into(),
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet; check the clocks".into(),
        UnknownIssuer => "its certificate is from an authority that is not trusted here; name it by `tls.ca`".into(),
        NotValidForName | NotValidForNameContext { .. } => {
            "its certificate is for another host; check the host in `url`".into()
        }
        error => format!("its certificate can't be trusted: {error}; check `tls.ca`"),
    }
}

/// What the broker has against us.
fn refusal(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired | Alert::HandshakeFailure => {
            "it asks for a certificate of ours; set `tls.certificate` and `tls.key`".into()
        }
        Alert::CertificateExpired => "our certificate has expired; renew `tls.certificate`".into(),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => {
            format!("it refuses our certificate ({alert:?}); check `tls.certificate` and `tls.key`")
        }
        alert => format!("it ended the TLS handshake ({alert:?}); check `tls`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_in_its_wrappings() {
        let check = |error: &(dyn Error + 'static), expect: Option<&str>| {
            let got = reason(error);
            match expect {
                Some(part) => assert!(got.as_ref().unwrap().contains(part), "{error}: {got:?}"),
                None => assert_eq!(got, None, "{error}"),
            }
        };
        let expired = || rustls::Error::InvalidCertificate(CertificateError::Expired);
        check(&expired(), Some("has expired"));
        check(
            &io::Error::new(io::ErrorKind::InvalidData, expired()),
            Some("has expired"),
        );
        check(
            &rumqttc_v5::ConnectionError::Tls(rumqttc_v5::TlsError::Io(io::Error::other(expired()))),
            Some("at the broker"),
        );
        check(
            &rumqttc_v4::ConnectionError::MqttState(rumqttc_v4::StateError::Io(io::Error::other(
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
            ))),
            Some("set `tls.certificate`"),
        );
        check(&io::Error::other("cable"), None);
        check(&io::Error::from(io::ErrorKind::ConnectionReset), None);
    }
}
