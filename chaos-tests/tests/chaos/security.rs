//! A cluster whose connections are encrypted: it works as ever, new certificates need no restart, and nobody else is let in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::network::{Host, TwoHosts};
use thalweg_chaos_tests::oracle::{self, Difference};
use thalweg_chaos_tests::pki::{Pki, belated_security, security};
use thalweg_chaos_tests::process::{Process, binary};
use thalweg_chaos_tests::wait;
use thalweg_common::id::SubmissionId;
use thalweg_common::security::{Role, Security};
use thalweg_common::status::JobStatus;
use thalweg_proto::client::{ClientError, GivenProperties, JobClient, SubmitOptions};
use thalweg_proto::transport::Dialer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NUMBERS: u64 = 20_000;
const KEYS: u64 = 97;
const LOOPBACK: &str = "127.0.0.1";

/// Several job managers of this machine do not serve REST at the same port.
const ANY_REST_PORT: [&str; 2] = ["-D", "rest.port=0"];

/// How long a client that is to be refused looks for a job manager that would not refuse it.
const PATIENCE: Duration = Duration::from_millis(300);

type Settings = Vec<(&'static str, String)>;

fn job() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos_job"))
}

fn options(settings: &Settings, client: Security) -> ClusterOptions {
    let options =
        ClusterOptions { task_managers: 2, slots: 1, security: client, ..ClusterOptions::default() };
    settings.iter().fold(options, |options, (key, value)| options.set(key, value))
}

fn has_counted_all(output: &Path) -> Result<()> {
    let keys: Vec<String> = (0..NUMBERS).map(|number| (number % KEYS).to_string()).collect();
    let expected = oracle::running_counts(keys.iter().map(String::as_str));
    ensure!(oracle::compare(&expected, &oracle::committed_lines(output)?) == Difference::default());
    Ok(())
}

/// What a client with this security hears.
async fn jobs(address: &str, security: Security) -> Result<usize, ClientError> {
    let client = JobClient::connect_with(Dialer::new(security), vec![address.to_string()], PATIENCE).await?;
    Ok(client.list().await?.len())
}

fn refused<T>(answer: Result<T, ClientError>, parts: &[&str]) -> Result<()> {
    let said = answer.err().context("was let in")?.to_string();
    for part in parts {
        ensure!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}

/// Three job managers, whose log is encrypted too, and a job whose two workers exchange records.
#[tokio::test]
async fn a_job_runs_on_over_two_workers_while_all_certificates_are_replaced() -> Result<()> {
    let folder = TempDir::new()?;
    let pki = Pki::init(folder.path(), &[LOOPBACK])?;
    let mut settings = pki.settings(LOOPBACK);
    settings.push(("security.ssl.rest.enabled", "true".to_string()));
    // The client has the token, and no certificate.
    let client = security(&pki.client_settings(), Role::Client)?;
    let mut cluster =
        Cluster::start(ClusterOptions { job_managers: 3, ..options(&settings, client) }).await?;
    let output = cluster.folder().join("output");
    let arguments =
        ["--count", &NUMBERS.to_string(), "--rate", "5000", "--output", &output.display().to_string()];
    let settings_of_job = [("execution.checkpointing.interval", "100 ms"), ("parallelism.default", "2")];
    let job = cluster.submit(job(), &arguments, &settings_of_job).await?;
    let counted = || oracle::committed_lines(&output).map_or(0, |lines| lines.values().sum::<u64>());
    wait::until_true("the first output", || counted() > NUMBERS / 10).await?;

    pki.renew(LOOPBACK)?;
    let leader = cluster.leader().await?;
    wait::until("the leader to take the new certificate", async || {
        let log = cluster.job_manager(leader)?.stderr();
        Ok(log.contains("certificates were replaced").then_some(()))
    })
    .await?;
    // By REST all job managers answer; two of them ask the third one.
    let bearer = format!("Bearer {}", std::fs::read_to_string(folder.path().join("clients/token"))?.trim());
    for id in 1..=3 {
        let url = cluster.rest_url(id).await?;
        let address = url.strip_prefix("https://").context("REST with TLS")?;
        wait::until("an overview", async || {
            let answer = overview(address, &folder.path().join("ca.pem"), Some(&bearer)).await?;
            Ok((answer.starts_with("HTTP/1.1 200") && answer.contains("slots-total")).then_some(()))
        })
        .await?;
    }
    // A task manager that comes now and one that was there speak with the new and the old certificates of the same authority.
    cluster.start_task_manager().await?;

    cluster.reaches(job, JobStatus::Finished).await?;
    has_counted_all(&output)?;
    ensure!(cluster.describe(job).await?.failures.is_empty(), "the job has been restarted");
    Ok(())
}

#[tokio::test]
async fn plain_text_unknown_and_expired_certificates_are_refused_by_every_port() -> Result<()> {
    let folder = TempDir::new()?;
    let pki = Pki::init(&folder.path().join("own"), &[LOOPBACK])?;
    let other = Pki::init(&folder.path().join("other"), &[LOOPBACK])?;
    let settings = pki.settings(LOOPBACK);
    let member = security(&settings, Role::Client)?;
    let cluster =
        Cluster::start(ClusterOptions { task_managers: 1, ..options(&settings, member.clone()) }).await?;
    let address = cluster.addresses().remove(0);
    refused_from_outside(&pki, LOOPBACK, &other, &address).await?;
    ensure!(jobs(&address, member).await? == 0);

    // Nodes that do not belong to it hear the same, and say so.
    let strangers: [(&str, Settings, &str); 2] = [
        ("plain", Vec::new(), "speaks TLS where plain text is expected"),
        ("unknown", other.settings(LOOPBACK), "is unknown"),
    ];
    for (name, settings, said) in strangers {
        let mut command = Command::new(binary("taskmanager")?);
        command.args(["--jobmanagers", &address, "--data-dir"]).arg(folder.path().join(name));
        for (key, value) in settings {
            command.arg("-D").arg(format!("{key}={value}"));
        }
        let stranger = Process::start(name, &mut command, folder.path())?;
        wait::until_true(&format!("{name} to be refused"), || stranger.stderr().contains(said)).await?;
    }
    // One that knows of its own certificate that others would refuse it does not even start.
    let mut command = Command::new(binary("taskmanager")?);
    command.args(["--jobmanagers", &address, "--data-dir"]).arg(folder.path().join("expired"));
    for (key, value) in pki.settings(&pki.expired(LOOPBACK)?) {
        command.arg("-D").arg(format!("{key}={value}"));
    }
    let mut expired = Process::start("expired", &mut command, folder.path())?;
    ensure!(!expired.ended().await?.success());
    ensure!(expired.stderr().contains("it has expired on"), "{}", expired.stderr());
    Ok(())
}

/// Every kind of client that must not be let in.
async fn refused_from_outside(pki: &Pki, host: &str, other: &Pki, address: &str) -> Result<()> {
    refused(jobs(address, Security::default()).await, &["speaks TLS where plain text is expected"])?;
    let stranger = security(&other.settings(LOOPBACK), Role::Client);
    refused(jobs(address, stranger?).await, &["the certificate of", "is unknown"])?;
    let mut without_token = pki.client_settings();
    without_token.retain(|(key, _)| *key != "security.token-file");
    let nobody = security(&without_token, Role::Client)?;
    refused(jobs(address, nobody).await, &["asks its clients for a token"])?;
    // Its own clock lets it try; the cluster's does not let it in.
    let expired = belated_security(&pki.settings(&pki.expired(host)?));
    refused(jobs(address, expired?).await, &["whose certificate has expired"])?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_others_could_reach_needs_tls_and_a_token_or_says_that_it_goes_without() -> Result<()> {
    let folder = TempDir::new()?;
    let pki = Pki::init(&folder.path().join("pki"), &["node-1"])?;
    let (jobmanager, taskmanager) = (binary("jobmanager")?, binary("taskmanager")?);
    let job_manager = ["--listen", "0.0.0.0:0", "--advertise", "node-1:6123"];
    let task_manager = ["--jobmanagers", "127.0.0.1:1", "--host", "0.0.0.0"];
    let start = |name: &str, program: &Path, arguments: &[&str], settings: &Settings| {
        let mut command = Command::new(program);
        command.args(arguments).args(ANY_REST_PORT).arg("--data-dir").arg(folder.path().join(name));
        for (key, value) in settings {
            command.arg("-D").arg(format!("{key}={value}"));
        }
        Process::start(name, &mut command, folder.path())
    };
    let without_token: Settings =
        pki.settings("node-1").into_iter().filter(|(key, _)| *key != "security.token-file").collect();
    for (name, program, arguments, settings, lacks) in [
        ("jm", &jobmanager, &job_manager[..], Vec::new(), "without TLS and without a token"),
        ("tm", &taskmanager, &task_manager[..], Vec::new(), "without TLS and without a token"),
        ("jm-token", &jobmanager, &job_manager[..], without_token, "without a token"),
    ] {
        let mut node = start(name, program, arguments, &settings)?;
        ensure!(!node.ended().await?.success(), "{name} has started");
        for part in
            [lacks, "thalweg pki init", "security.ssl.internal.enabled", "security.allow-insecure: true"]
        {
            ensure!(node.stderr().contains(part), "{name}: {part}: {}", node.stderr());
        }
    }
    let wrong_name = ["--listen", "0.0.0.0:0", "--advertise", "node-2:6123"];
    let mut node = start("jm-name", &jobmanager, &wrong_name, &pki.settings("node-1"))?;
    ensure!(!node.ended().await?.success() && node.stderr().contains("thalweg pki issue node-2"));

    let forced = vec![("security.allow-insecure", "true".to_string())];
    let mut node = start("jm-forced", &jobmanager, &job_manager, &forced)?;
    node.ready("jobmanager ready").await?;
    ensure!(node.stderr().contains("whoever reaches the port can run programs here"), "{}", node.stderr());
    let mut node = start("jm-secure", &jobmanager, &job_manager, &pki.settings("node-1"))?;
    node.ready("jobmanager ready").await?;
    Ok(())
}

/// A node's program on a host.
fn node(
    host: &Host,
    program: &str,
    arguments: &[&str],
    settings: &Settings,
    folder: &Path,
) -> Result<Process> {
    let name = format!("{program}-{}", host.address);
    let mut command = host.command(binary(program)?);
    command.args(arguments).arg("--data-dir").arg(folder.join(&name));
    for (key, value) in settings {
        command.arg("-D").arg(format!("{key}={value}"));
    }
    Process::start(&name, &mut command, folder)
}

#[tokio::test]
async fn two_hosts_speak_mtls_and_refuse_everybody_else() -> Result<()> {
    let Some(network) = TwoHosts::new("two_hosts_speak_mtls_and_refuse_everybody_else")? else {
        return Ok(());
    };
    let [left, right] = network.hosts();
    let folder = TempDir::new()?;
    let path = folder.path();
    let pki = Pki::init(&path.join("own"), &[left.address, right.address])?;
    let other = Pki::init(&path.join("other"), &[LOOPBACK])?;
    let address = format!("{}:6123", left.address);

    let listen = ["--listen", "0.0.0.0:6123", "--advertise", &address];
    let mut job_manager = node(left, "jobmanager", &listen, &pki.settings(left.address), path)?;
    job_manager.ready("jobmanager ready").await?;
    let mut task_managers = Vec::new();
    for host in network.hosts() {
        let arguments = ["--jobmanagers", &address, "--host", host.address, "--slots", "1"];
        task_managers.push(node(host, "taskmanager", &arguments, &pki.settings(host.address), path)?);
    }
    for task_manager in &mut task_managers {
        task_manager.ready("taskmanager ready").await?;
    }

    // The other host submits, with the token and no certificate; its job has a worker on each host.
    let output = path.join("output");
    let client = security(&pki.client_settings(), Role::Client)?;
    let options = SubmitOptions {
        binary: job(),
        arguments: ["--count", &NUMBERS.to_string(), "--output", &output.display().to_string()]
            .map(String::from)
            .to_vec(),
        configuration: [("execution.checkpointing.interval", "100 ms"), ("parallelism.default", "2")]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into(),
        properties: GivenProperties::default(),
        submission_id: SubmissionId::random()?,
    };
    let to = address.clone();
    let last = right.run(async move || {
        let client = JobClient::connect_with(Dialer::new(client), vec![to], wait::DEADLINE).await?;
        let job = client.submit(options, |_| ()).await?.job_id;
        let mut watch = client.watch(job);
        let mut last = None;
        while let Some(event) = watch.next().await? {
            last = Some(event.summary.status);
        }
        Ok(last)
    });
    ensure!(last.await? == Some(JobStatus::Finished));
    has_counted_all(&output)?;

    let (host, to) = (right.address, address.clone());
    right.run(async move || refused_from_outside(&pki, host, &other, &to).await).await?;
    Ok(())
}

/// The head and body of what REST answers to `GET /overview`, over TLS of a client that knows the cluster's authority.
async fn overview(address: &str, authority: &Path, authorization: Option<&str>) -> Result<String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(LOOPBACK)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request =
        format!("GET /overview HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn rest_is_encrypted_and_asks_for_the_token() -> Result<()> {
    let folder = TempDir::new()?;
    let pki = Pki::init(&folder.path().join("pki"), &[LOOPBACK])?;
    let mut command = Command::new(binary("jobmanager")?);
    command
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .args(ANY_REST_PORT);
    let mut settings = pki.settings(LOOPBACK);
    settings.push(("security.ssl.rest.enabled", "true".to_string()));
    for (key, value) in &settings {
        command.arg("-D").arg(format!("{key}={value}"));
    }
    let mut job_manager = Process::start("jm", &mut command, folder.path())?;
    job_manager.ready("jobmanager ready").await?;
    let address = job_manager.ready("jobmanager rest https://").await?;
    let authority = folder.path().join("pki/ca.pem");
    let token = std::fs::read_to_string(folder.path().join("pki/clients/token"))?;

    let bearer = format!("Bearer {}", token.trim());
    wait::until("the overview", async || {
        let answer = overview(&address, &authority, Some(&bearer)).await?;
        Ok((answer.starts_with("HTTP/1.1 200") && answer.contains("slots-total")).then_some(()))
    })
    .await?;
    for wrong in [None, Some("Bearer 0123456789abcdef0123456789abcdef")] {
        let answer = overview(&address, &authority, wrong).await?;
        ensure!(answer.starts_with("HTTP/1.1 401") && answer.contains("Basic realm"), "{answer}");
    }
    // Plain text is no HTTP here.
    let mut plain = TcpStream::connect(&address).await?;
    plain.write_all(b"GET /overview HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await?;
    ensure!(!answer.starts_with(b"HTTP"), "{answer:?}");
    ensure!(!job_manager.stderr().contains(token.trim()), "the token is in the log");
    Ok(())
}
