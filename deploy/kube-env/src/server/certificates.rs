//! The environment's certificate authority, the API server's certificate and the key of service account tokens.
//!
//! Owns their names in the environment's directory. Made anew for each environment; nothing outside it trusts them.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::write_private;

/// The authority.
pub(super) const CA: &str = "ca.crt";
/// The API server's certificate.
pub(super) const SERVER: &str = "apiserver.crt";
/// Its key.
pub(super) const SERVER_KEY: &str = "apiserver.key";
/// What service account tokens are checked with.
pub(super) const ACCOUNTS: &str = "accounts.pub";
/// What they are signed with.
pub(super) const ACCOUNTS_KEY: &str = "accounts.key";

#[derive(Debug)]
pub(super) struct Certificates {
    /// The authority, in PEM.
    pub(super) ca: String,
}

impl Certificates {
    /// Makes and writes all of them, for an API server at `address`.
    pub(super) fn write(directory: &Path, address: IpAddr) -> Result<Self> {
        let write = |name: &str, text: &str| write_private(&directory.join(name), text);

        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
            .distinguished_name
            .push(DnType::CommonName, "bulkhead test cluster");
        let ca = params
            .self_signed(&key)
            .context("cannot sign the authority")?
            .pem();
        write(CA, &ca)?;
        let issuer = Issuer::new(params, key);

        let key = KeyPair::generate().context("cannot make a key")?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
        ];
        let mut params = CertificateParams::new(
            names
                .into_iter()
                .map(str::to_owned)
                .chain([address.to_string()])
                .collect::<Vec<_>>(),
        )?;
        params
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &issuer)
            .context("cannot sign the API server's certificate")?;
        write(SERVER, &certificate.pem())?;
        write(SERVER_KEY, &key.serialize_pem())?;

        let key = KeyPair::generate().context("cannot make a key")?;
        write(ACCOUNTS, &key.public_key_pem())?;
        write(ACCOUNTS_KEY, &key.serialize_pem())?;
        Ok(Self { ca })
    }
}
