//! A cluster of two task managers, with the services of AWS on this machine: a model of Kinesis in the test, S3 and Firehose in ministack. Jobs
//! are submitted as users do it, by the command line, with a file of runtime properties.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::binary;
use thalweg_common::id::JobId;
use thalweg_common::storage::StorageFactory;
use thalweg_test_support::{FaultProxy, KinesisModel, S3Peer};

/// Groups of runtime properties, as they are in a file.
pub type Groups<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

/// Everything that runs.
pub struct World {
    pub cluster: Cluster,
    pub kinesis: KinesisModel,
    pub ministack: S3Peer,
    /// Between the cluster and its S3.
    pub proxy: FaultProxy,
    pub storages: StorageFactory,
}

/// The answer of a command.
pub struct Said {
    pub is_success: bool,
    pub out: String,
    pub err: String,
}

impl World {
    /// Two task managers.
    pub async fn start(slots: u32) -> Result<Self> {
        let (kinesis, ministack) = tokio::try_join!(KinesisModel::start(), S3Peer::start())?;
        let proxy = FaultProxy::start(ministack.address(), 1).await?;
        let mut options = ClusterOptions { task_managers: 2, slots, ..ClusterOptions::default() }
            .set("s3.endpoint", &format!("http://{}", proxy.address()))
            .set("s3.region", "us-east-1");
        let credentials = ministack.credentials_file().display().to_string();
        options.environment.insert("AWS_SHARED_CREDENTIALS_FILE".to_owned(), credentials);
        options.environment.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
        let cluster = Cluster::start(options).await?;
        let storages = StorageFactory::new(ministack.settings());
        Ok(Self { cluster, kinesis, ministack, proxy, storages })
    }

    /// The address of ministack, without the proxy.
    pub fn aws(&self) -> String {
        format!("http://{}", self.ministack.address())
    }

    /// Runs `thalweg` with these arguments.
    pub fn thalweg(&self, arguments: &[&str]) -> Result<Said> {
        let addresses = self.cluster.addresses().join(",");
        let output = Command::new(binary("thalweg")?)
            .args(["--jobmanager", &addresses, "--output", "json"])
            .args(arguments)
            .output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { is_success: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// The executable of an example without what is for debuggers, because each program of the cluster keeps a copy.
    fn program(&self, example: &str) -> Result<PathBuf> {
        let (built, small) = (binary(example)?, self.cluster.folder().join(example));
        if !small.is_file() {
            let is_stripped = Command::new("strip")
                .arg("-o")
                .args([&small, &built])
                .status()
                .is_ok_and(|status| status.success());
            if !is_stripped {
                std::fs::copy(&built, &small)?;
            }
        }
        Ok(small)
    }

    /// Submits an example under a name of its own.
    pub fn try_submit(&self, example: &str, name: &str, groups: Groups<'_>, more: &[&str]) -> Result<Said> {
        let file = self.cluster.folder().join(format!("{name}.json"));
        std::fs::write(&file, properties(groups).to_string())?;
        let (program, file) = (self.program(example)?.display().to_string(), file.display().to_string());
        let mut arguments = vec!["submit", "--detach", "--name", name, "--properties", &file];
        arguments.extend(more);
        arguments.push(&program);
        self.thalweg(&arguments)
    }

    /// The same, which must succeed; gives the job's id.
    pub fn submit(&self, example: &str, name: &str, groups: Groups<'_>, more: &[&str]) -> Result<JobId> {
        let said = self.try_submit(example, name, groups, more)?;
        ensure!(said.is_success, "{name}: {}{}", said.out, said.err);
        let answer: Value = serde_json::from_str(said.out.lines().next().unwrap_or_default())?;
        Ok(answer["job_id"].as_str().context("no id")?.parse()?)
    }

    /// The finished files below a place, by their paths.
    pub async fn files(&self, place: &str) -> Result<BTreeMap<String, String>> {
        let storage = self.storages.open(place)?;
        let mut files = BTreeMap::new();
        for object in storage.list("").await? {
            if !object.path.split('/').any(|part| part.starts_with('.')) {
                let bytes = storage.get(&object.path).await?;
                files.insert(object.path, String::from_utf8(bytes.to_vec())?);
            }
        }
        Ok(files)
    }

    /// What a stream has, in the order of its shards.
    pub fn written(&self, stream: &str) -> Result<Vec<String>> {
        texts_of(&self.kinesis, stream)
    }

    /// Writes records into a stream, each under its own text as partition key.
    pub fn put(&self, stream: &str, records: impl IntoIterator<Item = impl Into<String>>) -> Result<()> {
        for record in records {
            let record: String = record.into();
            let key: String = record.chars().take(64).collect();
            self.kinesis.put(stream, &key, record)?;
        }
        Ok(())
    }
}

/// What a stream has, in the order of its shards.
pub fn texts_of(kinesis: &KinesisModel, stream: &str) -> Result<Vec<String>> {
    let records = kinesis.records(stream)?.concat();
    Ok(records.into_iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()).collect())
}

/// The file of runtime properties.
fn properties(groups: Groups<'_>) -> Value {
    let group = |(id, map): &(&str, &[(&str, &str)])| {
        let map: BTreeMap<&str, &str> = map.iter().copied().collect();
        json!({ "PropertyGroupId": id, "PropertyMap": map })
    };
    groups.iter().map(group).collect()
}

/// All text files below a directory that have these words, each with the word.
pub fn files_with(directory: &Path, words: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, words)?);
        } else if path.extension().is_some_and(|extension| extension == "out" || extension == "err") {
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            let in_it = words.iter().filter(|word| text.contains(**word));
            found.extend(in_it.map(|word| format!("{word} in {}", path.display())));
        }
    }
    Ok(found)
}
