//! `thalweg pki`: what it makes is what nodes and clients can use, and nothing is overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use thalweg_common::clock::SystemClock;
use thalweg_common::config::{Configuration, keys};
use thalweg_common::security::{Role, Security};

use super::json_of;
use super::support::{Ended, run, thalweg};

async fn pki(directory: &Path, arguments: &[&str]) -> Ended {
    let directory = directory.to_str().unwrap();
    run(thalweg(&[&["pki"], arguments, &["--dir", directory]].concat())).await
}

/// What a process makes of the files of a host.
fn used(directory: &Path, role: Role) -> Security {
    let mut configuration = Configuration::new();
    let mut set = |key: &keys::ConfigKey, file: &str| {
        configuration.set(key.name, directory.join(file).to_str().unwrap()).unwrap();
    };
    set(&keys::SSL_INTERNAL_TRUSTED, "trusted-certificates.pem");
    set(&keys::TOKEN_FILE, "token");
    if role != Role::Client {
        set(&keys::SSL_INTERNAL_CERTIFICATE, "certificate.pem");
        set(&keys::SSL_INTERNAL_PRIVATE_KEY, "certificate.key");
    }
    configuration.set(keys::SSL_INTERNAL_ENABLED.name, "true").unwrap();
    Security::load(&configuration, |_| None, role, &SystemClock::shared()).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn init_makes_what_nodes_and_clients_need_and_says_what_to_do_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("pki");
    let ended = pki(&directory, &["init", "--hosts", "jm-1+10.0.0.5,worker-1", "--days", "90"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    for part in [
        "jm-1/. jm-1:/etc/thalweg/tls/",
        "security.ssl.internal.enabled: true",
        "security.ssl.rest.enabled: true",
        "security.ssl.internal.private-key: /etc/thalweg/tls/certificate.key",
        "security.token-file: ",
        "keep it away from the hosts",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let token = std::fs::read_to_string(directory.join("jm-1/token")).unwrap();
    assert!(!ended.stdout.contains(token.trim()), "the token is not shown");
    for secret in ["ca.key", "jm-1/certificate.key", "worker-1/certificate.key", "clients/token"] {
        assert_eq!(mode(&directory.join(secret)), 0o600, "{secret}");
    }
    assert_eq!((mode(&directory), mode(&directory.join("ca.pem"))), (0o700, 0o644));

    let node = used(&directory.join("jm-1"), Role::JobManager);
    for name in ["jm-1:6123", "10.0.0.5:6123"] {
        node.check_address(name).unwrap();
    }
    assert!(node.check_address("worker-1:6123").is_err());
    let client = used(&directory.join("clients"), Role::Client);
    assert!(client.token.unwrap().is(token.trim().as_bytes()));

    let again = pki(&directory, &["init", "--hosts", "jm-1"]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(
        again.stderr.contains("ca.pem is there already") && again.stderr.contains("thalweg pki issue HOST")
    );
}

#[tokio::test]
async fn issue_adds_a_host_and_replaces_only_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path();
    let nothing = pki(directory, &["issue", "worker-2"]).await;
    assert!(nothing.stderr.contains("`thalweg pki init` makes an authority"), "{nothing:?}");
    assert_eq!(pki(directory, &["init", "--hosts", "jm-1", "--days", "20"]).await.code, Some(0));
    assert_eq!(pki(directory, &["issue", "worker-2", "10.0.0.18"]).await.code, Some(0));
    used(&directory.join("worker-2"), Role::TaskManager).check_address("10.0.0.18:1").unwrap();

    let key = directory.join("worker-2/certificate.key");
    let before = std::fs::read(&key).unwrap();
    let refused = pki(directory, &["issue", "worker-2"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("--renew"), "{refused:?}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let renewed = pki(directory, &["issue", "worker-2", "--renew"]).await;
    assert!(renewed.stdout.contains("nothing has to be restarted"), "{renewed:?}");
    assert_ne!(std::fs::read(&key).unwrap(), before);
    used(&directory.join("worker-2"), Role::TaskManager);
    let wrong = pki(directory, &["issue", "worker-3:6122"]).await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("without a port"), "{wrong:?}");

    let shown = run(thalweg(&["pki", "show", directory.to_str().unwrap(), "--json"])).await;
    let certificates = json_of(&shown.stdout);
    let names: Vec<&Value> = certificates.as_array().unwrap().iter().map(|shown| &shown["subject"]).collect();
    assert!(
        names.contains(&&Value::from("CN=worker-2")) && names.contains(&&Value::from("CN=jm-1")),
        "{names:?}"
    );
    assert!(shown.stderr.contains("jm-1/certificate.pem expires in 19 days"), "{}", shown.stderr);
}
