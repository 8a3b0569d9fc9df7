//! The examples of the acceptance tests that use Kinesis, Firehose and S3, submitted to a cluster of two task managers, which serves all of them at
//! the same time: each gives exactly the stated output.

mod aws;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use aws::{World, texts_of};
use serde_json::{Value, json};
use thalweg_chaos_tests::wait;
use thalweg_common::clock::{Clock as _, SystemClock};
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_test_support::KinesisModel;

/// 2025-11-10 10:00:00 UTC.
const TEN_O_CLOCK_MS: i64 = 1_762_768_800_000;
const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;

/// Settings of a job whose checkpoints come quickly.
const QUICK: &[&str] = &["-D", "execution.checkpointing.interval=500ms", "--parallelism", "2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_ds_01_to_15_and_31_to_35_on_a_cluster() -> Result<()> {
    let world = World::start(14).await?;
    for bucket in ["ka-app-code", "data-lake", "deliveries"] {
        world.ministack.create_bucket(bucket).await?;
    }
    let copies = Copies::submit(&world).await?;
    let stock = Stock::submit(&world)?;
    let objects = submit_objects(&world)?;
    let events = submit_events(&world)?;
    let lake = submit_lake(&world)?;
    for job in [copies.jobs.as_slice(), &stock.jobs, &[objects, events, lake]].concat() {
        world.cluster.reaches(job, JobStatus::Running).await?;
    }
    tokio::try_join!(
        copies.check(&world),
        stock.check(&world),
        check_objects(&world),
        check_events(&world, events),
        check_lake(&world),
    )?;
    Ok(())
}

/// How a job reads a stream of the model from its beginning.
fn reads<'a>(stream: &'a str, endpoint: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("stream.name", stream),
        ("aws.region", "us-east-1"),
        ("aws.endpoint", endpoint),
        ("flink.stream.initpos", "TRIM_HORIZON"),
    ]
}

/// How it writes to one.
fn writes<'a>(stream: &'a str, endpoint: &'a str) -> [(&'a str, &'a str); 3] {
    [("stream.name", stream), ("aws.region", "us-east-1"), ("aws.endpoint", endpoint)]
}

/// How it writes to a delivery stream.
fn delivers<'a>(stream: &'a str, endpoint: &'a str) -> [(&'a str, &'a str); 3] {
    [("delivery.stream", stream), ("aws.region", "us-east-1"), ("aws.endpoint", endpoint)]
}

/// DS-01, 02, 03 and 12: streams that are copied.
struct Copies {
    jobs: Vec<JobId>,
    /// For the first job alone, so that one knows when it reads: it begins with what comes then.
    latest: KinesisModel,
}

impl Copies {
    async fn submit(world: &World) -> Result<Self> {
        let (kinesis, aws) = (world.kinesis.endpoint(), world.aws());
        let latest = KinesisModel::start().await?;
        let endpoint = latest.endpoint();
        for stream in ["ExampleInputStream", "ExampleOutputStream"] {
            latest.create_stream(stream, 1);
        }
        for (stream, shards) in [("ds03", 1), ("SourceAccountExampleInputStream", 1), ("ds12", 4)] {
            world.kinesis.create_stream(stream, shards);
        }
        world.ministack.create_delivery_stream("ExampleOutputStream", "deliveries", "ds03/").await?;
        latest.put("ExampleInputStream", "key", "before the start")?;
        let plain = world.submit(
            "kinesis_copy",
            "getting-started",
            &[
                ("ConsumerConfigProperties", &[("aws.region", "us-east-1"), ("aws.endpoint", &endpoint)]),
                (
                    "ProducerConfigProperties",
                    &[
                        ("flink.stream.initpos", "LATEST"),
                        ("aws.region", "us-east-1"),
                        ("aws.endpoint", &endpoint),
                        ("AggregationEnabled", "false"),
                        // One after the other, so that the order of the shard is kept.
                        ("sink.requests.max-inflight", "1"),
                    ],
                ),
            ],
            QUICK,
        )?;
        let firehose = world.submit(
            "kinesis_copy",
            "Flink Streaming Java API Skeleton",
            &[
                ("ConsumerConfigProperties", &reads("ds03", &kinesis)),
                ("ProducerConfigProperties", &delivers("ExampleOutputStream", &aws)),
            ],
            QUICK,
        )?;
        let mut role = reads("SourceAccountExampleInputStream", &kinesis).to_vec();
        role.extend([
            ("aws.credentials.provider", "ASSUME_ROLE"),
            ("aws.credentials.role.arn", "arn:aws:iam::111111111111:role/KA-Source-Stream-Role"),
            ("aws.credentials.role.sessionName", "ksassumedrolesession"),
            ("aws.sts.endpoint", &kinesis),
        ]);
        let across = world.submit(
            "kinesis_copy",
            "cross-account",
            &[("ConsumerConfigProperties", &role), ("ProducerConfigProperties", &writes("ds12", &kinesis))],
            QUICK,
        )?;
        Ok(Self { jobs: vec![plain, firehose, across], latest })
    }

    async fn check(&self, world: &World) -> Result<()> {
        // LATEST: what comes when the stream has been listed.
        wait::until_true("the stream is read", || self.latest.requests("GetRecords") > 0).await?;
        let texts: Vec<String> = (0..50).map(|number| format!("record {number} \u{d55c}\u{ae00}")).collect();
        for text in &texts {
            self.latest.put("ExampleInputStream", "key", text.clone())?;
        }
        world.put("ds03", texts.clone())?;
        let keyed = ["\"AAPL\",2\n", "\"AMZN\",1\n", "\"AAPL\":10.00\n"];
        world.put("SourceAccountExampleInputStream", keyed)?;

        let copied = async |model: &KinesisModel, stream: &str, count: usize| {
            wait::until(stream, async || {
                let written = texts_of(model, stream)?;
                Ok((written.len() >= count).then_some(written))
            })
            .await
        };
        let output = copied(&self.latest, "ExampleOutputStream", 50).await?;
        ensure!(output == texts, "each once, byte by byte, in order: {output:?}");
        let delivered = wait::until("Firehose to deliver", async || {
            let files = world.files("s3://deliveries/ds03").await?;
            Ok((files.len() >= 50).then_some(files))
        });
        let mut delivered: Vec<String> = delivered.await?.into_values().collect();
        delivered.sort_unstable();
        let mut expected = texts.clone();
        expected.sort_unstable();
        ensure!(delivered == expected, "{delivered:?}");

        copied(&world.kinesis, "ds12", 3).await?;
        let shards = world.kinesis.records("ds12")?;
        let keys: BTreeMap<String, String> = shards
            .concat()
            .into_iter()
            .map(|record| (String::from_utf8_lossy(&record.data).into_owned(), record.partition_key))
            .collect();
        let expected = ["209386016", "-1737333179", "-381653167"].map(String::from);
        ensure!(keyed.iter().map(|text| keys[*text].clone()).eq(expected), "{keys:?}");
        let roles = world.kinesis.roles();
        ensure!(roles.iter().all(|role| role.contains("RoleSessionName=ksassumedrolesession")), "{roles:?}");
        ensure!(!roles.is_empty(), "the role was assumed");
        Ok(())
    }
}

/// DS-06, 07, 08, 11, 13, 14 and 15: windows over one stream of trades, by the clock.
struct Stock {
    jobs: Vec<JobId>,
}

impl Stock {
    fn submit(world: &World) -> Result<Self> {
        let (kinesis, aws) = (world.kinesis.endpoint(), world.aws());
        for stream in ["trades", "ds06", "ds07", "ds14"] {
            world.kinesis.create_stream(stream, 1);
        }
        let input = reads("trades", &kinesis);
        let consumer = ("ConsumerConfigProperties", input.as_slice());
        let colon: (&str, &[(&str, &str)]) = ("FlinkApplicationProperties", &[("separator", ":")]);
        let submit = |name, groups: aws::Groups<'_>| world.submit("stock_streams", name, groups, QUICK);
        let (ds06, ds07, ds14) =
            (writes("ds06", &kinesis), writes("ds07", &kinesis), writes("ds14", &kinesis));
        let ds11 = delivers("ExampleDeliveryStream", &aws);
        Ok(Self {
            jobs: vec![
                submit("Min Stock Price", &[consumer, ("Counts", &ds06), ("LowestPrices", &ds07)])?,
                submit(
                    "s3-and-scala",
                    &[
                        consumer,
                        colon,
                        ("Counts", &[("s3.sink.path", "s3a://ka-app-code/data")]),
                        ("LowestPrices", &ds14),
                    ],
                )?,
                submit("firehose", &[consumer, ("LowestPrices", &ds11)])?,
                submit(
                    "scala-s3",
                    &[consumer, ("LowestPrices", &[("s3.sink.path", "s3://ka-app-code/prices")])],
                )?,
            ],
        })
    }

    async fn check(&self, world: &World) -> Result<()> {
        world.ministack.create_delivery_stream("ExampleDeliveryStream", "deliveries", "ds11/").await?;
        // The windows of ten seconds begin with the clock's.
        let clock = SystemClock::new();
        let until = async |at_ms: i64| {
            let left = at_ms.saturating_sub(clock.now_ms()).max(0);
            // not a wait: the clock is what these windows go by
            tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
        };
        let begin_ms = (clock.now_ms() / 10_000 + 1) * 10_000;
        let trades = [(1, "AAPL", 10.0), (1, "AMZN", 5.0), (6, "AAPL", 7.5), (12, "AAPL", 9.25)];
        for (second, ticker, price) in trades {
            until(begin_ms + second * SECOND_MS).await;
            let time = "2024-01-01T12:00:00.123456";
            world.put(
                "trades",
                [json!({ "event_time": time, "ticker": ticker, "price": price }).to_string()],
            )?;
        }
        until(begin_ms + 20 * SECOND_MS).await;

        let lowest = [("AAPL", "10.00"), ("AMZN", "5.00"), ("AAPL", "7.50"), ("AMZN", "5.00")];
        let lowest = [lowest.as_slice(), &[("AAPL", "7.50"), ("AAPL", "9.25")]].concat();
        let lines = |form: &dyn Fn(&str, &str) -> String| -> Vec<String> {
            let mut lines: Vec<String> = lowest.iter().map(|(ticker, price)| form(ticker, price)).collect();
            lines.sort_unstable();
            lines
        };
        let counts: Vec<String> = ["\"AAPL\",1\n", "\"AAPL\",2\n", "\"AMZN\",1\n"].map(String::from).to_vec();
        let of_stream = async |stream: &str, expected: &[String]| -> Result<()> {
            becomes(stream, expected, async || world.written(stream)).await
        };
        of_stream("ds06", &counts).await?;
        of_stream("ds07", &lines(&|ticker, price| format!("\"{ticker}\",{price}\n"))).await?;
        of_stream("ds14", &lines(&|ticker, price| format!("\"{ticker}\":{price}\n"))).await?;
        let of_files = async |place: &str| -> Result<Vec<String>> {
            let files = world.files(place).await?;
            Ok(files
                .into_values()
                .flat_map(|text| text.split_inclusive('\n').map(String::from).collect::<Vec<_>>())
                .collect())
        };
        // The encoder adds a newline, so that there is an empty line behind each.
        let in_files =
            ["\"AAPL\" count: 1\n", "\"AAPL\" count: 2\n", "\"AMZN\" count: 1\n", "\n", "\n", "\n"];
        let mut in_files = in_files.map(String::from);
        in_files.sort_unstable();
        becomes("ds08", &in_files, async || of_files("s3://ka-app-code/data").await).await?;
        let delivered = lines(&|ticker, price| format!("{ticker}: min - {price}\n"));
        becomes("ds11", &delivered, async || of_files("s3://deliveries/ds11").await).await?;
        let prices = lines(&|ticker, price| format!("\"{ticker}\",{price}\n"));
        becomes("ds15", &prices, async || of_files("s3://ka-app-code/prices").await).await
    }
}

/// Waits until something is there as often as expected, in any order, and that there is nothing else.
async fn becomes(
    what: &str,
    expected: &[String],
    mut look: impl AsyncFnMut() -> Result<Vec<String>>,
) -> Result<()> {
    let mut found = wait::until(what, async || {
        let found = look().await?;
        Ok((found.len() >= expected.len()).then_some(found))
    })
    .await?;
    found.sort_unstable();
    ensure!(found == expected, "{what}: {found:?} in place of {expected:?}");
    Ok(())
}

/// DS-04 and DS-05: JSON objects whose fields change.
fn submit_objects(world: &World) -> Result<JobId> {
    let kinesis = world.kinesis.endpoint();
    for stream in ["objects", "ds04", "ds05"] {
        world.kinesis.create_stream(stream, 1);
    }
    let groups = [
        ("ConsumerConfigProperties", reads("objects", &kinesis).to_vec()),
        ("Names", writes("ds04", &kinesis).to_vec()),
        ("Sums", writes("ds05", &kinesis).to_vec()),
    ];
    let groups: Vec<_> = groups.iter().map(|(id, map)| (*id, map.as_slice())).collect();
    world.submit("stock_streams", "objects", &groups, QUICK)
}

async fn check_objects(world: &World) -> Result<()> {
    let clock = SystemClock::new();
    let left_ms = 5_000 - clock.now_ms() % 5_000;
    // not a wait: both records must be in one window of the clock
    tokio::time::sleep(Duration::from_millis(left_ms.unsigned_abs())).await;
    world.put("objects", [r#"{"TICKER":"A","PRICE":10,"id":1}"#, r#"{"TICKER":"A","PRICE":5.5,"id":2}"#])?;
    world.put("objects", [r#"{"TICKER":"AAPL","PRICE":1}"#])?;
    let of = async |stream: &str, expected: Vec<Value>| -> Result<()> {
        let found = wait::until(stream, async || {
            let written = world.written(stream)?;
            Ok((written.len() >= expected.len()).then_some(written))
        });
        let found: Vec<Value> =
            found.await?.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
        ensure!(found.len() == expected.len(), "{stream}: {found:?}");
        ensure!(expected.iter().all(|value| found.contains(value)), "{stream}: {found:?}");
        Ok(())
    };
    let named = [
        json!({ "TICKER": "A Company", "PRICE": 10, "id": 1 }),
        json!({ "TICKER": "A Company", "PRICE": 5.5, "id": 2 }),
        json!({ "TICKER": "AAPL Company", "PRICE": 1 }),
    ];
    of("ds04", named.to_vec()).await?;
    let sums = [json!({ "TICKER": "A", "PRICE": 15.5, "id": 1 }), json!({ "TICKER": "AAPL", "PRICE": 1 })];
    of("ds05", sums.to_vec()).await
}

/// DS-31, 34 and 35: events of an application, from a stream with few shards.
fn submit_events(world: &World) -> Result<JobId> {
    let kinesis = world.kinesis.endpoint();
    for (stream, shards) in [("app-events", 2), ("analytics-agg", 1), ("login-alerts", 1)] {
        world.kinesis.create_stream(stream, shards);
    }
    let groups = [
        ("ConsumerConfigProperties", reads("app-events", &kinesis).to_vec()),
        ("Counts", writes("analytics-agg", &kinesis).to_vec()),
        ("Alerts", writes("login-alerts", &kinesis).to_vec()),
    ];
    let groups: Vec<_> = groups.iter().map(|(id, map)| (*id, map.as_slice())).collect();
    world.submit("app_events", "app-events", &groups, &["--parallelism", "4"])
}

async fn check_events(world: &World, job: JobId) -> Result<()> {
    let event = |minute: i64, second: i64, user: &str, action: &str, country: &str| {
        let timestamp = format!("2025-11-10T{:02}:{:02}:{second:02}Z", 10 + minute / 60, minute % 60);
        json!({
            "timestamp": timestamp, "user_id": user, "action": action, "page": "/products/42", "device": "mobile",
            "country": country, "value": 1,
        })
        .to_string()
    };
    let clicks = [(10, "u-1"), (50, "u-2")].map(|(second, user)| event(0, second, user, "click", "KR"));
    let failed = [0, 2, 4, 6, 8].map(|minute| event(minute, 10, "u-1932", "login_failed", "US"));
    // None may be late: each comes when those before it have been read.
    for (number, text) in (1..).zip(clicks.into_iter().chain(failed)) {
        world.put("app-events", [text])?;
        wait::until("the event is parsed", async || {
            let details = world.cluster.describe(job).await?;
            let tasks = details.vertices.iter().flat_map(|vertex| &vertex.subtasks);
            let operators = tasks.flat_map(|task| &task.counters.operators);
            let parsers = operators.filter(|operator| operator.name == "parse");
            let parsed: u64 = parsers.map(|operator| operator.records_out).sum();
            Ok((parsed >= number).then_some(()))
        })
        .await?;
    }
    world.put("app-events", [event(120, 0, "u-9", "end", "ZZ")])?;

    let counted = |key: &str, minute: i64, count: u64| {
        let end_ms = TEN_O_CLOCK_MS + minute * MINUTE_MS;
        format!("{{\"key\":\"{key}\",\"count\":{count},\"window_end\":{end_ms}}}")
    };
    // Two clicks in the windows that end 10:01 to 10:05; of the failures, one every other minute, those of five minutes.
    let mut counts: Vec<String> = (1..=5).map(|minute| counted("KR#click", minute, 2)).collect();
    let failures = [1, 1, 2, 2, 3, 2, 3, 2, 3, 2, 2, 1, 1];
    counts.extend((1..).zip(failures).map(|(minute, count)| counted("US#login_failed", minute, count)));
    counts.sort_unstable();
    becomes("analytics-agg", &counts, async || world.written("analytics-agg")).await?;
    let alert = |minute: i64| {
        let end_ms = TEN_O_CLOCK_MS + minute * MINUTE_MS;
        format!("{{\"user\":\"u-1932\",\"count\":5,\"window_end\":{end_ms}}}")
    };
    becomes("login-alerts", &[alert(9), alert(10)], async || world.written("login-alerts")).await?;
    let keys = world.kinesis.records("analytics-agg")?.concat();
    ensure!(keys.iter().all(|record| record.partition_key == "0"), "the partition key is 0");
    Ok(())
}

/// DS-32 and 33: files of a data lake.
fn submit_lake(world: &World) -> Result<JobId> {
    let kinesis = world.kinesis.endpoint();
    world.kinesis.create_stream("clicks", 1);
    world.submit(
        "clicks_to_lake",
        "clicks",
        &[
            ("ConsumerConfigProperties", &reads("clicks", &kinesis)),
            (
                "Lake",
                &[
                    ("text.path", "s3://data-lake/text"),
                    ("json.path", "s3://data-lake/json"),
                    ("rolling.inactivity.seconds", "1"),
                ],
            ),
        ],
        QUICK,
    )
}

async fn check_lake(world: &World) -> Result<()> {
    let click = |number: i64| {
        let (user, ts) = (number % 3, TEN_O_CLOCK_MS - number % 5 * SECOND_MS);
        (format!("u-{user}"), ts, number as f64 * 1.5)
    };
    let json_of = |number| {
        let (user, ts, spend) = click(number);
        format!("{{\"userId\":\"{user}\",\"url\":\"/buy\",\"ts\":{ts},\"spend\":{spend:?}}}")
    };
    let text_of = |number| {
        let (user, ts, spend) = click(number);
        format!("{user},/buy,{ts},{spend}")
    };
    // Silence between the two, so that there are files of both.
    for numbers in [0..4, 4..10] {
        let end = numbers.end;
        world.put("clicks", numbers.map(json_of))?;
        for (place, of) in [("text", &text_of as &dyn Fn(i64) -> String), ("json", &json_of)] {
            let mut expected: Vec<String> = (0..end).map(of).collect();
            expected.sort_unstable();
            becomes(place, &expected, async || {
                let files = world.files(&format!("s3://data-lake/{place}")).await?;
                Ok(files.values().flat_map(|text| text.lines().map(String::from)).collect())
            })
            .await?;
        }
    }
    let files = world.files("s3://data-lake/json").await?;
    ensure!(files.len() >= 2, "silence closes a file: {files:?}");
    Ok(())
}
