//! Whom a fetch trusts, and what it shows of itself.

use std::path::Path;
use std::sync::Arc;

use ureq::tls::{ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::{FetchError, Source, small_file, unusable};

pub(super) fn config(source: &Source) -> Result<TlsConfig, FetchError> {
    let roots = match &source.ca_file {
        None => RootCerts::WebPki,
        Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
    };
    let client = match &source.client_certificate {
        None => None,
        Some((chain, key)) => Some(ClientCert::new_with_certs(
            &certificates(chain)?,
            private_key(key)?,
        )),
    };
    Ok(TlsConfig::builder().root_certs(roots).client_cert(client).build())
}

fn certificates(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, FetchError> {
    let mut certificates = Vec::new();
    for item in parse_pem(&small_file(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(path, error))? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(unusable(path, "has no certificate in PEM")),
        false => Ok(certificates),
    }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, FetchError> {
    PrivateKey::from_pem(&small_file(path)?).map_err(|_| unusable(path, "has no private key in PEM"))
}
