//! A cluster of real processes on loopback: job managers, task managers and a client, in a temporary directory.
//!
//! Stands between the commands that need a cluster and `process`. Invariants: whatever was started is stopped when the
//! cluster is dropped, unless it was started to stay; nothing is waited for without a deadline.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::clock::wait_until;
use crate::process::{Lifetime, Process, stop_all};
use crate::program::Programs;
use crate::signal::Interrupt;

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(15);
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// How large a cluster is, and how long it lives.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub job_managers: usize,
    pub task_managers: usize,
    pub slots: usize,
    pub lifetime: Lifetime,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    size: Size,
    directory: PathBuf,
    addresses: Vec<String>,
    /// By id, from 1; none once it was killed.
    job_managers: Vec<Option<Process>>,
    task_managers: Vec<Process>,
    task_managers_started: usize,
    interrupt: Interrupt,
}

impl Cluster {
    /// Starts a cluster and waits until it has a leader and all its task managers.
    ///
    /// # Errors
    /// When a program does not start or is not ready in time.
    pub fn start(programs: Programs, size: Size, directory: &Path, interrupt: Interrupt) -> Result<Self> {
        let mut cluster = Self {
            programs,
            size,
            directory: directory.to_path_buf(),
            addresses: free_addresses(size.job_managers)?,
            job_managers: Vec::new(),
            task_managers: Vec::new(),
            task_managers_started: 0,
            interrupt,
        };
        for id in 1..=size.job_managers {
            let process = cluster.start_job_manager(id)?;
            cluster.job_managers.push(Some(process));
        }
        for process in cluster.job_managers.iter_mut().flatten() {
            process.wait_for_line("jobmanager ready ", READY_WITHIN, &cluster.interrupt)?;
        }
        for _ in 0..size.task_managers {
            cluster.start_task_manager()?;
        }
        for process in &mut cluster.task_managers {
            process.wait_for_line("taskmanager ready ", READY_WITHIN, &cluster.interrupt)?;
        }
        Ok(cluster)
    }

    /// The command line client, pointed at all job managers.
    pub fn client(&self) -> Client {
        Client::new(&self.programs.thalweg, self.addresses.join(","))
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Names and process ids of everything that runs.
    pub fn processes(&self) -> Vec<(&str, u32)> {
        let job_managers = self.job_managers.iter().flatten();
        job_managers.chain(&self.task_managers).map(|process| (process.name(), process.id())).collect()
    }

    /// Kills a task manager (SIGKILL) and starts one in its place. Answers both names.
    ///
    /// # Errors
    /// When there is none, or it had died by itself, or the new one does not register.
    pub fn replace_task_manager(&mut self) -> Result<(String, String)> {
        if self.task_managers.is_empty() {
            bail!("there is no task manager to kill");
        }
        let mut killed = self.task_managers.remove(0);
        killed.kill()?;
        self.start_task_manager()?;
        let started = self.task_managers.last_mut().context("one was just started")?;
        started.wait_for_line("taskmanager ready ", READY_WITHIN, &self.interrupt)?;
        Ok((killed.name().to_owned(), started.name().to_owned()))
    }

    /// Kills the leading job manager (SIGKILL). Answers its name.
    ///
    /// # Errors
    /// When none leads in time, or it had died by itself.
    pub fn kill_leader(&mut self) -> Result<String> {
        let client = self.client();
        let leader = wait_until("a leading job manager", READY_WITHIN, &self.interrupt, || {
            // During an election the client cannot tell yet.
            Ok(client.leader().ok().flatten())
        })?;
        let slot = self.job_managers.get_mut(leader.saturating_sub(1));
        let mut process = slot
            .and_then(Option::take)
            .with_context(|| format!("job manager {leader} leads, but it is not one that runs here"))?;
        process.kill()?;
        Ok(process.name().to_owned())
    }

    /// Stops everything in order: the task managers drain while there is still a leader to tell.
    ///
    /// # Errors
    /// When something did not stop when asked to, or left a process behind.
    pub fn stop(mut self) -> Result<()> {
        stop_all(&mut self.task_managers, STOP_WITHIN).context("task managers")?;
        let mut job_managers: Vec<_> = self.job_managers.iter_mut().filter_map(Option::take).collect();
        stop_all(&mut job_managers, STOP_WITHIN).context("job managers")?;
        let directory = self.directory.clone();
        wait_until("the workers to end with their task managers", GONE_WITHIN, &Interrupt::default(), || {
            Ok(programs_running_from(&directory).is_empty().then_some(()))
        })
        .with_context(|| format!("still running: {:?}", programs_running_from(&self.directory)))
    }

    /// Lets everything run on without us. Meaningful for [`Lifetime::ItsOwn`] only.
    pub fn leave_running(mut self) {
        let job_managers = self.job_managers.drain(..).flatten();
        job_managers.chain(self.task_managers.drain(..)).for_each(Process::leave_running);
    }

    fn start_job_manager(&self, id: usize) -> Result<Process> {
        let peers: Vec<_> = self
            .addresses
            .iter()
            .enumerate()
            .map(|(index, address)| format!("{}={address}", index + 1))
            .collect();
        let name = format!("jobmanager-{id}");
        let arguments = [
            "--id".into(),
            id.to_string(),
            "--listen".into(),
            self.addresses[id - 1].clone(),
            "--peers".into(),
            peers.join(","),
            "--data-dir".into(),
            self.data_directory(&name),
            // Several of them share this machine.
            "-D".into(),
            "rest.port=0".into(),
        ];
        Process::start(&name, &self.programs.jobmanager, arguments, &self.logs(), self.size.lifetime)
    }

    fn start_task_manager(&mut self) -> Result<()> {
        self.task_managers_started += 1;
        let name = format!("taskmanager-{}", self.task_managers_started);
        let arguments = [
            "--jobmanagers".into(),
            self.addresses.join(","),
            "--id".into(),
            name.clone(),
            "--slots".into(),
            self.size.slots.to_string(),
            "--data-dir".into(),
            self.data_directory(&name),
        ];
        let process =
            Process::start(&name, &self.programs.taskmanager, arguments, &self.logs(), self.size.lifetime)?;
        self.task_managers.push(process);
        Ok(())
    }

    fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    fn data_directory(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Programs whose file lies in this directory: workers, which run from their task manager's copy of the job's binary.
fn programs_running_from(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|program| program.starts_with(directory))
        })
        .collect()
}

/// Addresses on loopback that were free a moment ago. All are held until all are known, so they differ.
fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback"))
        .collect::<Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

/// A directory of our own below the system's temporary one; removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    keep: bool,
}

impl DataDirectory {
    /// # Errors
    /// When it cannot be created.
    pub fn create(purpose: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("thalweg-{purpose}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        // Workers are recognised by the path of their program, which the kernel reports without symbolic links.
        let path = fs::canonicalize(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path, keep: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("warning: {} can be deleted by hand: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ() {
        let mut addresses = free_addresses(5).expect("free ports");
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
    }

    #[test]
    fn a_data_directory_goes_with_its_owner_unless_kept() {
        let directory = DataDirectory::create("test-gone").expect("created");
        let path = directory.path().to_path_buf();
        assert!(path.is_dir());
        drop(directory);
        assert!(!path.exists());

        let mut directory = DataDirectory::create("test-kept").expect("created");
        directory.keep();
        let path = directory.path().to_path_buf();
        drop(directory);
        assert!(path.is_dir());
        fs::remove_dir_all(path).expect("removed");
    }

    #[test]
    fn programs_are_recognised_by_where_their_file_lies() {
        let program = env::current_exe().expect("known");
        let directory = program.parent().expect("files lie in directories");
        assert!(programs_running_from(directory).contains(&std::process::id()));
        assert!(programs_running_from(&directory.join("elsewhere")).is_empty());
    }
}
