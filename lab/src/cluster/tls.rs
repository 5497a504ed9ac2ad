//! The certificate authority of a lab: its browsers and gateways trust it, as those of a company trust
//! its own.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::Cluster;
use crate::spec::Name;
use crate::state::{LabDir, write_private};

/// The authority.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: LabDir,
}

/// A certificate and its key, in PEM files.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    /// Makes it, and the file that others are to trust.
    pub(super) fn make(dir: &LabDir) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "portway-lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::create_dir_all(dir.file("tls"))?;
        fs::write(Cluster::authority_file(dir), issuer.pem())?;
        Ok(Self {
            issuer,
            dir: dir.clone(),
        })
    }

    /// A certificate for the names of a host.
    pub(super) fn issue(&self, host: &Name, names: &[&str]) -> anyhow::Result<Files> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = Files {
            certificate: self.dir.file(&format!("tls/{host}.pem")),
            key: self.dir.file(&format!("tls/{host}.key")),
        };
        fs::write(&files.certificate, certificate.pem())?;
        write_private(&files.key, key.serialize_pem().as_bytes())?;
        Ok(files)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}
