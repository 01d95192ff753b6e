//! Certificates for a test, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Who signs them.
pub struct Authority {
    folder: PathBuf,
    pub certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path) -> Self {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let mut command = openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=narrows test authority", "-addext", "keyUsage=critical,keyCertSign"]);
        run(command.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
        Self { folder: folder.into(), certificate, key }
    }

    /// A certificate for this machine and its key.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let at = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        let (certificate, key, request, extensions) = (at("pem"), at("key"), at("csr"), at("ext"));
        let mut command = openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        run(command.args(["-subj", &format!("/CN={name}")]).arg("-keyout").arg(&key).arg("-out").arg(&request));
        let uses = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:false\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(&extensions, uses).unwrap();
        let mut command = openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"]);
        command.arg("-in").arg(&request).arg("-CA").arg(&self.certificate).arg("-CAkey").arg(&self.key);
        run(command.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate));
        (certificate, key)
    }
}

fn openssl(words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(words);
    command
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
