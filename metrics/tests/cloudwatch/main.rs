//! A report through something that speaks CloudWatch: what arrives has the names, units, dimensions and samples that were sent.
#![allow(clippy::unwrap_used, clippy::panic)]

mod logs;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, StandardUnit, Statistic};
use thalweg_common::clock::SystemClock;
use thalweg_metrics::cloudwatch::client::{CloudWatch, CloudWatchSettings};
use thalweg_metrics::cloudwatch::connect::Place;
use thalweg_metrics::report::Datum;
use thalweg_metrics::table::Unit;
use thalweg_test_support::S3Peer;
use thalweg_test_support::s3_peer::{ACCESS_KEY, SECRET_KEY};

const NAMESPACE: &str = "AWS/KinesisAnalytics";

fn settings(peer: &S3Peer) -> CloudWatchSettings {
    CloudWatchSettings {
        namespace: NAMESPACE.into(),
        place: Place {
            region: Some("us-east-1".into()),
            endpoint: Some(format!("http://{}", peer.address())),
            credentials_file: Some(peer.credentials_file()),
        },
    }
}

/// What asks the peer for what it has.
fn asking(peer: &S3Peer) -> Client {
    let config = aws_sdk_cloudwatch::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{}", peer.address()))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

#[tokio::test]
async fn a_report_arrives_with_names_units_and_dimensions() {
    let peer = S3Peer::start().await.unwrap();
    let cloudwatch = CloudWatch::connect(&settings(&peer)).await;
    let now_ms = SystemClock::shared().now_ms();
    let datum = |name: &str, unit, task: Option<&str>, values: Vec<f64>| {
        let mut dimensions = vec![("Application".to_string(), "words".to_string())];
        dimensions.extend(task.map(|task| ("Task".to_string(), task.to_string())));
        Datum { name: name.into(), unit, dimensions, values, timestamp_ms: now_ms }
    };
    // More than one request takes, and a metric with more samples than one datum takes.
    let mut data: Vec<_> = (0..1_200)
        .map(|number| datum(&format!("filler{number}"), Unit::None, None, vec![f64::from(number)]))
        .collect();
    data.push(datum("uptime", Unit::Milliseconds, None, vec![91_000.0]));
    let busy = (0..200).map(f64::from).chain([0.0]).collect();
    data.push(datum("busyTimeMsPerSecond", Unit::Milliseconds, Some("source -> map"), busy));
    let orders = ("StreamName".to_string(), "orders".to_string());
    let shard = ("ShardId".to_string(), "shardId-000000000001".to_string());
    for (own, value) in [(vec![orders.clone()], 1_500.0), (vec![orders, shard], 700.0)] {
        let mut behind = datum("millisBehindLatest", Unit::Milliseconds, None, vec![value]);
        behind.dimensions.extend(own);
        data.push(behind);
    }
    cloudwatch.put(data).await.unwrap();

    let client = asking(&peer);
    let statistics = async |name: &str, dimensions: &[(&str, &str)]| {
        let dimension = |(name, value): &(&str, &str)| Dimension::builder().name(*name).value(*value).build();
        let asked = client
            .get_metric_statistics()
            .namespace(NAMESPACE)
            .metric_name(name)
            .set_dimensions(Some(dimensions.iter().map(dimension).collect()))
            .start_time(DateTime::from_millis(now_ms - 120_000))
            .end_time(DateTime::from_millis(now_ms + 120_000))
            .period(60)
            .statistics(Statistic::Sum)
            .statistics(Statistic::SampleCount)
            .statistics(Statistic::Maximum);
        let found = asked.send().await.unwrap();
        let [point] = found.datapoints() else { panic!("{name}: {found:?}") };
        assert_eq!(point.unit(), Some(&StandardUnit::Milliseconds), "{name}");
        (point.sum().unwrap(), point.sample_count().unwrap(), point.maximum().unwrap())
    };
    let words = ("Application", "words");
    assert_eq!(statistics("uptime", &[words]).await, (91_000.0, 1.0, 91_000.0));
    let task = [words, ("Task", "source -> map")];
    assert_eq!(statistics("busyTimeMsPerSecond", &task).await, (19_900.0, 201.0, 199.0));
    let stream = [words, ("StreamName", "orders")];
    assert_eq!(statistics("millisBehindLatest", &stream).await, (1_500.0, 1.0, 1_500.0));
    let shard = [words, stream[1], ("ShardId", "shardId-000000000001")];
    assert_eq!(statistics("millisBehindLatest", &shard).await, (700.0, 1.0, 700.0));
    let last = client.list_metrics().namespace(NAMESPACE).metric_name("filler1199").send().await.unwrap();
    assert!(!last.metrics().is_empty(), "nothing is left out");
}

#[tokio::test]
async fn who_cannot_be_reached_is_named_with_a_cure() {
    // Nobody listens at the port of a listener that is gone.
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let peer = tempfile::tempdir().unwrap();
    let credentials = peer.path().join("credentials");
    std::fs::write(
        &credentials,
        format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"),
    )
    .unwrap();
    let settings = CloudWatchSettings {
        namespace: NAMESPACE.into(),
        place: Place {
            region: Some("us-east-1".into()),
            endpoint: Some(format!("http://{address}")),
            credentials_file: Some(credentials),
        },
    };
    let datum = Datum {
        name: "uptime".into(),
        unit: Unit::Milliseconds,
        dimensions: Vec::new(),
        values: vec![1.0],
        timestamp_ms: 1,
    };
    let error = CloudWatch::connect(&settings).await.put(vec![datum]).await.unwrap_err().to_string();
    assert!(error.contains("check `metrics.reporter.cloudwatch.region` and `.endpoint`"), "{error}");
    assert!(!error.contains(SECRET_KEY), "{error}");
}
