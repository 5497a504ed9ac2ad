//! A certificate authority that the browsers of these tests trust, as those of a company trust its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// File with the certificate of the authority.
const CERTIFICATE: &str = "authority.pem";

/// The authority of this process, with a certificate valid for any of its `names`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Issues a certificate for host names and addresses.
///
/// # Errors
/// If they are no names, or files cannot be written.
pub fn issue(names: &[&str]) -> anyhow::Result<Certificate> {
    let authority = authority()?;
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;
    let folder = tempfile::tempdir_in(authority.folder.path())?.keep();
    let files = Certificate {
        certificate: folder.join("chain.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.certificate, certificate.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

/// The authority's own certificate, for whoever is to trust it.
///
/// # Errors
/// If files cannot be written.
pub fn certificate() -> anyhow::Result<PathBuf> {
    Ok(authority()?.folder.path().join(CERTIFICATE))
}

/// Makes a database of certificates in which an authority is trusted, for a browser.
pub(crate) fn trust(database: &Path, authority: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(database)?;
    let database = format!("sql:{}", database.display());
    for args in [
        &["-N", "--empty-password"][..],
        &["-A", "-n", "tests", "-t", "C,,", "-i"],
    ] {
        let mut certutil = Command::new("certutil");
        certutil.args(["-d", &database]).args(args);
        if args[0] == "-A" {
            certutil.arg(authority);
        }
        let output = certutil
            .stdin(Stdio::null())
            .output()
            .context("cannot run certutil: run `cargo xtask test` once")?;
        anyhow::ensure!(
            output.status.success(),
            "certutil: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn authority() -> anyhow::Result<&'static Authority> {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    if let Some(authority) = AUTHORITY.get() {
        return Ok(authority);
    }
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "Portway's tests");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(CERTIFICATE), issuer.pem())?;
    Ok(AUTHORITY.get_or_init(|| Authority { issuer, folder }))
}
