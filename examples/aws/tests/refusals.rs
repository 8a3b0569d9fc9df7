//! Wrong credentials, expired tokens, streams and buckets that are not there, a wrong region: refused when a job is submitted, or reported with
//! cause and cure while it restarts ever later; without a loop of requests, and without a secret in any log.

mod aws;

use anyhow::{Context, Result, ensure};
use aws::{World, files_with};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::properties::HIDDEN;
use thalweg_common::status::JobStatus;
use thalweg_proto::model::JobDetails;
use thalweg_test_support::kinesis::SECRET_TOKEN;
use thalweg_test_support::s3_peer::SECRET_KEY;
use thalweg_test_support::{FaultProxy, Faults, KinesisModel};

/// Given to jobs in their runtime properties.
const SECRET: &str = "a-secret-key-in-the-properties";

/// A sink is asked to write at once.
const QUICK: &[&str] = &["-D", "execution.checkpointing.interval=200ms"];

/// Requests of an attempt: those of one subtask, with their retries.
const REQUESTS_EACH: usize = 8;

/// A job that cannot do what it should, and the services that it asks.
struct Case {
    name: &'static str,
    job: JobId,
    words: &'static [&'static str],
    /// Who refuses, and which requests are counted there.
    refuses: Option<(KinesisModel, &'static str)>,
    _other: KinesisModel,
}

/// What is wrong.
#[derive(Clone, Copy)]
enum Wrong {
    /// Where it reads.
    Input(Option<&'static str>),
    /// The host of that service: there is none.
    Host(&'static str),
    /// Where it writes.
    Output(Option<&'static str>),
    Delivery(Option<&'static str>),
}

impl Case {
    /// A copy whose input or output refuses everything with a code, or is not there.
    async fn copy(
        world: &World,
        name: &'static str,
        wrong: Wrong,
        words: &'static [&'static str],
    ) -> Result<Self> {
        let (refusing, other) = (KinesisModel::start().await?, KinesisModel::start().await?);
        let (code, operation) = match wrong {
            Wrong::Input(code) => (code, "ListShards"),
            Wrong::Host(_) => (None, "ListShards"),
            Wrong::Output(code) => (code, "PutRecords"),
            Wrong::Delivery(code) => (code, "PutRecordBatch"),
        };
        refusing.rule(|rules| rules.denies = code);
        other.create_stream("there", 1);
        (0..20).try_for_each(|number| other.put("there", &number.to_string(), "record").map(drop))?;
        let refusing_endpoint = match wrong {
            Wrong::Host(host) => format!("http://{host}"),
            _ => refusing.endpoint(),
        };
        let other_endpoint = other.endpoint();
        let group = |stream_key: &'static str, is_wrong: bool| {
            let (stream, endpoint) =
                if is_wrong { ("missing", &refusing_endpoint) } else { ("there", &other_endpoint) };
            [
                (stream_key, stream),
                ("aws.region", "us-east-1"),
                ("aws.endpoint", endpoint.as_str()),
                ("aws.credentials.provider", "BASIC"),
                ("aws.credentials.basic.accesskeyid", "TESTACCESSKEY"),
                ("aws.credentials.basic.secretkey", SECRET),
            ]
        };
        let mut consumer = group("stream.name", matches!(wrong, Wrong::Input(_) | Wrong::Host(_))).to_vec();
        consumer.push(("flink.stream.initpos", "TRIM_HORIZON"));
        let producer = match wrong {
            Wrong::Delivery(_) => group("delivery.stream", true),
            _ => group("stream.name", matches!(wrong, Wrong::Output(_))),
        };
        let groups =
            [("ConsumerConfigProperties", consumer.as_slice()), ("ProducerConfigProperties", &producer)];
        let job = world.submit("kinesis_copy", name, &groups, QUICK)?;
        let refuses = (!matches!(wrong, Wrong::Host(_))).then_some((refusing, operation));
        Ok(Self { name, job, words, refuses, _other: other })
    }

    /// Waits until the cluster tells why, and that the job does not go on at once.
    async fn check(&self, world: &World) -> Result<()> {
        let details = failed(world, self).await?;
        let text = details.failures.last().context("a failure")?.failure.message.clone();
        for word in self.words {
            ensure!(text.contains(word), "{}: `{word}` is missing in: {text}", self.name);
        }
        // It has tried again, if that may help, and waits longer each time.
        let details = wait::until(self.name, async || {
            let details = world.cluster.describe(self.job).await?;
            let is_settled = details.summary.status == JobStatus::Failed || details.summary.attempt >= 3;
            Ok(is_settled.then_some(details))
        })
        .await?;
        if let Some((model, operation)) = &self.refuses {
            let (requests, attempts) = (model.requests(operation), details.summary.attempt as usize);
            ensure!(
                (1..=REQUESTS_EACH * attempts).contains(&requests),
                "{}: {requests} requests in {attempts} attempts",
                self.name
            );
        }
        Ok(())
    }
}

/// The job with its first failure.
async fn failed(world: &World, case: &Case) -> Result<JobDetails> {
    wait::until(case.name, async || {
        let details = world.cluster.describe(case.job).await?;
        Ok((!details.failures.is_empty()).then_some(details))
    })
    .await
}

/// A region that is written wrongly, in a name that no name server has to be asked about.
const NO_HOST: &str = "-kinesis.us-est-1.invalid";

/// What is said of credentials.
const CREDENTIALS: &str = "give the task manager valid credentials, or check `aws.credentials.provider`";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_kinesis_and_firehose_are_told_with_cause_and_cure() -> Result<()> {
    let world = World::start(8).await?;
    let copy = async |name, wrong, words| Case::copy(&world, name, wrong, words).await;
    use Wrong::{Delivery, Host, Input, Output};
    let cases = [
        copy(
            "no-input",
            Input(None),
            &["ResourceNotFoundException", "Stream missing", "exists in this account and region"],
        )
        .await?,
        copy(
            "denied-input",
            Input(Some("AccessDeniedException")),
            &["AccessDenied", "allow the role or user"],
        )
        .await?,
        copy("expired-input", Input(Some("ExpiredTokenException")), &["ExpiredToken", CREDENTIALS]).await?,
        copy("wrong-input", Input(Some("UnrecognizedClientException")), &["UnrecognizedClient", CREDENTIALS])
            .await?,
        copy("no-host", Host(NO_HOST), &["UnknownHost", NO_HOST, "check how `aws.region` or `aws.endpoint`"])
            .await?,
        copy(
            "no-output",
            Output(None),
            &["ResourceNotFoundException", "check that the stream missing exists"],
        )
        .await?,
        copy("expired-output", Output(Some("ExpiredTokenException")), &["ExpiredToken", CREDENTIALS]).await?,
        copy("wrong-region", Output(Some("InvalidSignatureException")), &["InvalidSignature", CREDENTIALS])
            .await?,
        copy(
            "denied-output",
            Output(Some("AccessDeniedException")),
            &["AccessDenied", "allow the role or user"],
        )
        .await?,
        copy(
            "no-delivery",
            Delivery(None),
            &["ResourceNotFoundException", "check that the delivery stream missing exists"],
        )
        .await?,
        copy(
            "denied-delivery",
            Delivery(Some("AccessDeniedException")),
            &["AccessDenied", "the delivery stream"],
        )
        .await?,
        copy("expired-delivery", Delivery(Some("ExpiredTokenException")), &["ExpiredToken", CREDENTIALS])
            .await?,
    ];
    for case in &cases {
        case.check(&world).await?;
    }
    let described = world.thalweg(&["describe", "expired-input"])?;
    ensure!(described.out.contains(HIDDEN) && !described.out.contains(SECRET), "{}", described.out);
    for word in
        ["AccessDenied", "ResourceNotFoundException", "ExpiredToken", "will be asked at most 2 times more"]
    {
        ensure!(!files_with(world.cluster.folder(), &[word])?.is_empty(), "no log has {word}");
    }
    let secrets = files_with(world.cluster.folder(), &[SECRET, SECRET_KEY, SECRET_TOKEN])?;
    ensure!(secrets.is_empty(), "{secrets:?}");
    Ok(())
}

/// A job that writes clicks to a bucket.
fn lake(world: &World, name: &str, bucket: &str, kinesis: &str, more: &[&str]) -> Result<aws::Said> {
    let (text, json) = (format!("s3://{bucket}/text"), format!("s3://{bucket}/json"));
    let consumer = [
        ("stream.name", "clicks"),
        ("aws.region", "us-east-1"),
        ("aws.endpoint", kinesis),
        ("flink.stream.initpos", "TRIM_HORIZON"),
    ];
    let groups = [
        ("ConsumerConfigProperties", consumer.as_slice()),
        ("Lake", &[("text.path", text.as_str()), ("json.path", json.as_str())]),
    ];
    world.try_submit("clicks_to_lake", name, &groups, &[QUICK, more].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_s3_are_told_when_a_job_is_submitted_or_while_it_restarts() -> Result<()> {
    let world = World::start(4).await?;
    let proxy = &world.proxy;
    world.ministack.create_bucket("data-lake").await?;
    world.kinesis.create_stream("clicks", 1);
    let click = r#"{"userId":"u-1","url":"/buy","ts":0,"spend":1.5}"#;
    world.put("clicks", (0..20).map(|_| click))?;
    let kinesis = world.kinesis.endpoint();

    // Checkpoints: told to whoever submits.
    let missing = "execution.checkpointing.dir=s3://no-such-bucket/jobs";
    let said = lake(&world, "missing", "data-lake", &kinesis, &["-D", missing])?;
    ensure!(!said.is_success, "{}", said.out);
    says(&said.err, &["s3://no-such-bucket/jobs", "NoSuchBucket", "create the bucket"])?;
    let there = ["-D", "execution.checkpointing.dir=s3://data-lake/jobs"];
    for (code, words) in REFUSALS {
        deny(proxy, code);
        let before = proxy.requests();
        let said = lake(&world, code, "data-lake", &kinesis, &there)?;
        ensure!(!said.is_success, "{code}: {}", said.out);
        says(&said.err, words)?;
        ensure!(proxy.requests() - before <= 3, "{} requests", proxy.requests() - before);
    }

    // Files: the job is told where it writes.
    for (name, bucket, code, words) in [
        ("no-bucket", "no-such-bucket", None, &["NoSuchBucket", "create the bucket"][..]),
        ("expired-files", "data-lake", Some("ExpiredToken"), &["ExpiredToken", "renew the credentials"]),
    ] {
        match code {
            Some(code) => deny(proxy, code),
            None => proxy.set_faults(Faults::default()),
        }
        let before = proxy.requests();
        let said = lake(&world, name, bucket, &kinesis, &[])?;
        ensure!(said.is_success, "{name}: {}", said.err);
        let job = serde_json::from_str::<serde_json::Value>(&said.out)?["job_id"]
            .as_str()
            .context("an id")?
            .parse()?;
        let details = wait::until(name, async || {
            let details = world.cluster.describe(job).await?;
            Ok((!details.failures.is_empty() && details.summary.attempt >= 3).then_some(details))
        })
        .await?;
        says(&details.failures.last().context("a failure")?.failure.message, words)?;
        let (requests, attempts) = (proxy.requests() - before, u64::from(details.summary.attempt));
        ensure!(requests <= 20 * attempts, "{name}: {requests} requests in {attempts} attempts");
        world.cluster.client().await?.cancel(job).await?;
    }
    let secrets = files_with(world.cluster.folder(), &[SECRET_KEY, SECRET_TOKEN])?;
    ensure!(secrets.is_empty(), "{secrets:?}");
    Ok(())
}

/// What S3 may refuse with, and what is said of it.
const REFUSALS: [(&str, &[&str]); 5] = [
    ("AccessDenied", &["AccessDenied", "allow these credentials s3:GetObject"]),
    ("ExpiredToken", &["ExpiredToken", "renew the credentials"]),
    ("InvalidAccessKeyId", &["InvalidAccessKeyId", "renew the credentials"]),
    ("SignatureDoesNotMatch", &["SignatureDoesNotMatch", "renew the credentials"]),
    (
        "AuthorizationHeaderMalformed",
        &["AuthorizationHeaderMalformed", "set `s3.region` to the region of the bucket"],
    ),
];

/// Where credentials are refused some stores repeat them.
fn deny(proxy: &FaultProxy, code: &'static str) {
    let is_about_credentials = !["AccessDenied", "AuthorizationHeaderMalformed"].contains(&code);
    proxy.deny_with(code, if is_about_credentials { SECRET_TOKEN } else { "The store says why" });
}

fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "`{word}` is missing in: {text}");
    }
    ensure!(!text.contains(SECRET_KEY), "{text}");
    Ok(())
}
