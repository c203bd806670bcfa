//! Certificates, as this machine's openssl makes them. A key stands beside its certificate, as a file of its owner alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
/// What `openssl ca` wants to know; it alone sets both ends of a certificate's time.
const ISSUER: &str = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\nunique_subject=no\n\
                      default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n";

/// When a certificate holds.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    /// From now on, for a day.
    Now,
    /// On one day of 2020.
    InThePast,
}

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output();
    let made = made.expect("openssl is installed by scripts/install");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// openssl's own mode depends on its version.
fn close(key: &Path) {
    fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
}

/// A certificate authority of this name: the file of its certificate.
pub fn authority(folder: &Path, name: &str) -> PathBuf {
    openssl(
        folder,
        &format!(
            "req -x509 {NEW_KEY} -days 1 -subj /CN={name} -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign -keyout {name}.key -out {name}.crt"
        ),
    );
    close(&folder.join(format!("{name}.key")));
    folder.join(format!("{name}.crt"))
}

/// A certificate that this authority issued to a server of this name: the file `{file}.crt`.
pub fn issued(folder: &Path, issuer: &str, file: &str, name: &str, holds: Holds) -> PathBuf {
    openssl(folder, &format!("req {NEW_KEY} -subj /CN={name} -keyout {file}.key -out {file}.csr"));
    close(&folder.join(format!("{file}.key")));
    let says = format!("subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n");
    fs::write(folder.join(format!("{file}.ext")), says).unwrap();
    fs::write(folder.join("issuer.cnf"), ISSUER).unwrap();
    fs::write(folder.join("index.txt"), "").unwrap();
    let time = match holds {
        Holds::Now => "-days 1",
        Holds::InThePast => "-startdate 20200101000000Z -enddate 20200102000000Z",
    };
    openssl(
        folder,
        &format!(
            "ca -batch -notext -config issuer.cnf -cert {issuer}.crt -keyfile {issuer}.key -extfile {file}.ext {time} \
             -in {file}.csr -out {file}.crt"
        ),
    );
    folder.join(format!("{file}.crt"))
}

/// A certificate for `localhost` that vouches for itself, in these two files of a folder.
pub fn self_signed(folder: &Path, certificate: &str, key: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 {NEW_KEY} -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
             -addext basicConstraints=critical,CA:FALSE -keyout {key} -out {certificate}"
        ),
    );
    close(&folder.join(key));
}
