//! The certificate authorities of this system.

use rustls::RootCertStore;

/// The certificate authorities of this system: those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, where one is set, else those of the usual
/// places.
///
/// # Errors
///
/// There is none, so that nothing could be connected to: why, and what to do.
pub fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!(
        "this system trusts no certificate authority, so that no server can be reached over TLS{why}; install the package \
         ca-certificates, or name a file of certificates as ca_file or SSL_CERT_FILE"
    ))
}
