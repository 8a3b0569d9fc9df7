//! Two hosts on one machine: network namespaces of a test, with a cable between them and nothing else.
//!
//! A host's programs see no other network, not even the loopback of the machine. Both are gone with the value, whatever the test did.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Two hosts that reach each other.
#[derive(Debug)]
pub struct TwoHosts {
    hosts: [Host; 2],
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: String,
    /// Its address.
    pub address: &'static str,
}

impl TwoHosts {
    /// Two new hosts; `None` if this machine does not let the test `name` have them, which is printed.
    ///
    /// # Errors
    /// When the machine lets it have namespaces, but no cable.
    pub fn new(name: &str) -> Result<Option<Self>> {
        let unique = std::process::id();
        let host = |number: u32, address| Host { namespace: format!("thw{unique}n{number}"), address };
        let hosts = Self { hosts: [host(1, "10.77.0.1"), host(2, "10.77.0.2")] };
        let [left, right] = &hosts.hosts;
        if ip(&["netns", "add", &left.namespace]).is_err() {
            println!(
                "skipped: {name} needs root and network namespaces (`ip netns add`), which this machine does not give it"
            );
            return Ok(None);
        }
        ip(&["netns", "add", &right.namespace])?;
        let ends = [
            "link",
            "add",
            "eth0",
            "netns",
            &left.namespace,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
        ];
        ip(&[&ends[..], &[&right.namespace]].concat())?;
        for host in &hosts.hosts {
            let address = format!("{}/24", host.address);
            ip(&["-n", &host.namespace, "addr", "add", &address, "dev", "eth0"])?;
            for device in ["eth0", "lo"] {
                ip(&["-n", &host.namespace, "link", "set", device, "up"])?;
            }
        }
        Ok(Some(hosts))
    }

    /// The two of them.
    #[must_use]
    pub fn hosts(&self) -> [&Host; 2] {
        let [left, right] = &self.hosts;
        [left, right]
    }
}

impl Drop for TwoHosts {
    fn drop(&mut self) {
        for host in &self.hosts {
            // The cable goes with its ends. One that was never made is none to remove.
            let _ = ip(&["netns", "del", &host.namespace]);
        }
    }
}

impl Host {
    /// A command for a program that runs on this host.
    #[must_use]
    pub fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Does something on this host, on a thread and a runtime of its own.
    ///
    /// # Errors
    /// That of `work`, or when the host cannot be entered.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let namespace = format!("/run/netns/{}", self.namespace);
        let (done, result) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("host".into());
        thread.spawn(move || {
            let inside = || {
                let namespace = File::open(&namespace).with_context(|| namespace.clone())?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(work())
            };
            // A test that has ended wants to know nothing any more.
            let _ = done.send(inside());
        })?;
        result.await.map_err(|_| anyhow!("what was done on the host has panicked"))?
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run `ip` (Debian: iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip {}` failed: {said}", arguments.join(" "));
    Ok(())
}
