//! Certificates that are replaced, broken, strange or old, with a clock that is moved by hand.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::super::Security;
use super::super::pki::{Authority, Issued, Validity};
use super::*;
use crate::clock::{Clock, ManualClock};

const NOW_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;

struct Fixture {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    authority: Authority,
}

impl Fixture {
    /// An authority, and a certificate of it for `node-1`, valid for 90 days.
    fn new() -> Self {
        let fixture = Self {
            directory: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::new(NOW_MS)),
            authority: Authority::create(Validity::days(NOW_MS, 3_650)).unwrap(),
        };
        fixture.write("ca.pem", &fixture.authority.own().certificate);
        fixture.place(&fixture.issue(90));
        fixture
    }

    fn issue(&self, days: u32) -> Issued {
        self.authority.issue(&["node-1".into()], Validity::days(self.clock.now_ms(), days)).unwrap()
    }

    fn place(&self, issued: &Issued) {
        self.write("node.pem", &issued.certificate);
        self.write("node.key", &issued.private_key);
    }

    /// As people and tools put files in the place of others: by a new one.
    fn write(&self, name: &str, text: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.directory.path().join(name)).unwrap();
    }

    fn configuration(&self) -> Configuration {
        let mut configuration = Configuration::new();
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        for (key, value) in [
            (keys::SSL_INTERNAL_ENABLED, "true".to_owned()),
            (keys::SSL_INTERNAL_CERTIFICATE, path("node.pem")),
            (keys::SSL_INTERNAL_PRIVATE_KEY, path("node.key")),
            (keys::SSL_INTERNAL_TRUSTED, path("ca.pem")),
        ] {
            configuration.set(key.name, &value).unwrap();
        }
        configuration
    }

    fn load(&self, role: Role) -> Result<Security, SecurityError> {
        let clock: SharedClock = self.clock.clone();
        Security::load(&self.configuration(), |_| None, role, &clock)
    }

    fn tls(&self) -> Arc<Tls> {
        self.load(Role::TaskManager).unwrap().tls.unwrap()
    }

    fn refused(&self) -> String {
        self.load(Role::TaskManager).unwrap_err().to_string()
    }
}

fn days_left(tls: &Tls, clock: &ManualClock) -> i64 {
    (tls.expires_ms().unwrap() - clock.now_ms()) / DAY_MS
}

#[test]
fn new_files_are_used_a_second_later_and_broken_ones_never() {
    let fixture = Fixture::new();
    let tls = fixture.tls();
    let first = tls.server().unwrap();
    assert_eq!(days_left(&tls, &fixture.clock), 90);

    let next = fixture.issue(200);
    fixture.place(&next);
    assert_eq!(days_left(&tls, &fixture.clock), 90, "nobody has looked yet");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(days_left(&tls, &fixture.clock), 199);
    assert!(!Arc::ptr_eq(&first, &tls.server().unwrap()));

    // Half of a new pair: the old pair stays until the other half is there.
    let third = fixture.issue(300);
    fixture.write("node.pem", &third.certificate);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(days_left(&tls, &fixture.clock), 199);
    fixture.write("node.key", &third.private_key);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(days_left(&tls, &fixture.clock), 299);

    for (name, text) in [("node.pem", "nonsense"), ("ca.pem", ""), ("node.key", "nonsense")] {
        fixture.write(name, text);
        fixture.clock.advance(Duration::from_secs(1));
        assert_eq!(days_left(&tls, &fixture.clock), 299, "{name}");
        assert!(tls.lock().complaint.as_ref().unwrap().contains(name), "{name}");
        fixture.place(&third);
        fixture.write("ca.pem", &fixture.authority.own().certificate);
        fixture.clock.advance(Duration::from_secs(1));
        assert_eq!((days_left(&tls, &fixture.clock), tls.lock().complaint.clone()), (299, None));
    }
}

#[test]
fn what_others_would_refuse_is_refused_at_the_start() {
    let fixture = Fixture::new();
    let other = Authority::create(Validity::days(NOW_MS, 10)).unwrap();
    fixture.write("ca.pem", &other.own().certificate);
    let refused = fixture.refused();
    assert!(refused.contains("has signed it") && refused.contains("ca.pem"), "{refused}");

    let fixture = Fixture::new();
    let key = fixture.issue(1).private_key;
    fixture.write("node.key", &key);
    assert!(fixture.refused().contains("does not belong to the certificate"));

    let fixture = Fixture::new();
    fixture.clock.advance(Duration::from_secs(91 * 86_400));
    let refused = fixture.refused();
    assert!(refused.contains("expired on 2027-04-1") && refused.contains("thalweg pki issue"), "{refused}");

    let fixture = Fixture::new();
    fixture.clock.set_now_ms(NOW_MS - DAY_MS);
    assert!(fixture.refused().contains("clock"));

    let fixture = Fixture::new();
    std::fs::remove_file(fixture.directory.path().join("node.key")).unwrap();
    let refused = fixture.refused();
    assert!(refused.contains("cannot read `security.ssl.internal.private-key`"), "{refused}");
}

#[test]
fn nodes_need_all_files_and_clients_those_they_trust() {
    let fixture = Fixture::new();
    let clock: SharedClock = fixture.clock.clone();
    let load = |configuration: &Configuration, role| Security::load(configuration, |_| None, role, &clock);
    for key in [keys::SSL_INTERNAL_CERTIFICATE, keys::SSL_INTERNAL_PRIVATE_KEY, keys::SSL_INTERNAL_TRUSTED] {
        let mut configuration = fixture.configuration();
        configuration.unset(&key);
        for role in [Role::JobManager, Role::TaskManager, Role::Worker, Role::Client] {
            let error = load(&configuration, role).unwrap_err().to_string();
            assert!(error.contains(&format!("`{}` is not set", key.name)), "{error}");
        }
    }
    let mut configuration = fixture.configuration();
    configuration.unset(&keys::SSL_INTERNAL_CERTIFICATE);
    configuration.unset(&keys::SSL_INTERNAL_PRIVATE_KEY);
    let tls = load(&configuration, Role::Client).unwrap().tls.unwrap();
    assert!(tls.server().is_none() && tls.expires_ms().is_none());
    tls.check_name("anything").unwrap();
}

#[test]
fn rest_has_a_certificate_of_its_own_or_that_of_the_node() {
    let fixture = Fixture::new();
    let clock: SharedClock = fixture.clock.clone();
    let mut configuration = fixture.configuration();
    assert!(Tls::of_rest(&configuration, &clock).unwrap().is_none());
    configuration.set(keys::SSL_REST_ENABLED.name, "true").unwrap();
    let tls = Tls::of_rest(&configuration, &clock).unwrap().unwrap();
    assert_eq!(days_left(&tls, &fixture.clock), 90);

    // Of another authority, which browsers know and the cluster does not.
    let other = Authority::create(Validity::days(NOW_MS, 10)).unwrap();
    let issued = other.issue(&["rest.example".into()], Validity::days(NOW_MS, 7)).unwrap();
    fixture.write("rest.pem", &issued.certificate);
    fixture.write("rest.key", &issued.private_key);
    let path = |name: &str| fixture.directory.path().join(name).display().to_string();
    configuration.set(keys::SSL_REST_CERTIFICATE.name, &path("rest.pem")).unwrap();
    let error = Tls::of_rest(&configuration, &clock).unwrap_err().to_string();
    assert!(error.contains("`security.ssl.rest.private-key` is not set"), "{error}");
    configuration.set(keys::SSL_REST_PRIVATE_KEY.name, &path("rest.key")).unwrap();
    let tls = Tls::of_rest(&configuration, &clock).unwrap().unwrap();
    assert_eq!((days_left(&tls, &fixture.clock), tls.server().is_some()), (7, true));
    fixture.clock.advance(Duration::from_secs(8 * 86_400));
    let error = Tls::of_rest(&configuration, &clock).unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_node_is_told_that_its_certificate_lacks_its_name() {
    let fixture = Fixture::new();
    let tls = fixture.tls();
    tls.check_name("node-1").unwrap();
    for other in ["node-2", "10.0.0.7", "[::1]", "no name"] {
        let error = tls.check_name(other).unwrap_err().to_string();
        assert!(error.contains(&format!("thalweg pki issue {other}")), "{error}");
    }
}

#[test]
fn expiry_is_warned_of_for_thirty_days() {
    let warning = |days: i64| expiry_warning(NOW_MS, NOW_MS + days * DAY_MS);
    assert_eq!((warning(31), warning(30)), (None, None));
    let soon = warning(29).unwrap();
    assert!(soon.starts_with("expires on 2027-02-13, in 29 days; `thalweg pki issue`"), "{soon}");
    assert!(warning(0).unwrap().starts_with("has expired on 2027-01-15"));
}

#[test]
fn nothing_of_a_key_is_shown() {
    let fixture = Fixture::new();
    let shown = format!("{:?}", fixture.load(Role::TaskManager).unwrap());
    let key = std::fs::read_to_string(fixture.directory.path().join("node.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!shown.contains(secret) && Path::new(fixture.directory.path()).exists());
}
