//! A network of its own for each worker, so that its link can be cut and healed. Needs root.

use std::process::{Command, Output};

use anyhow::{Result, bail};

/// A bridge and a namespace for each worker.
pub struct Net {
    bridge: String,
    number: u8,
    workers: usize,
}

impl Net {
    /// # Errors
    /// Why there can't be one, in words.
    pub fn create(workers: usize) -> Result<Self> {
        let id = std::process::id();
        let number = u8::try_from(id % 200)? + 20;
        let net = Self { bridge: format!("flc{}", id % 100_000), number, workers };
        net.build()?;
        Ok(net)
    }

    fn build(&self) -> Result<()> {
        let (bridge, gateway) = (&self.bridge, format!("{}/24", self.gateway()));
        ip(&["link", "add", "name", bridge, "type", "bridge"])?;
        ip(&["addr", "add", &gateway, "dev", bridge])?;
        ip(&["link", "set", bridge, "up"])?;
        for index in 0..self.workers {
            let (space, link) = (self.namespace(index), self.link(index));
            let address = format!("10.213.{}.{}/24", self.number, 10 + index);
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &link, "master", bridge, "up"])?;
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// Where workers find master, broker and the stand-in.
    pub fn gateway(&self) -> String {
        format!("10.213.{}.1", self.number)
    }

    pub fn namespace(&self, index: usize) -> String {
        format!("{}n{index}", self.bridge)
    }

    fn link(&self, index: usize) -> String {
        format!("{}v{index}", self.bridge)
    }

    /// What a worker sends and is sent is lost from now on.
    pub fn cut(&self, index: usize) {
        let _ = ip(&["link", "set", &self.link(index), "down"]);
    }

    pub fn heal(&self, index: usize) {
        let _ = ip(&["link", "set", &self.link(index), "up"]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for index in 0..self.workers {
            let _ = ip(&["netns", "del", &self.namespace(index)]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let Output { status, stderr, .. } = Command::new("ip").env("PATH", path).args(arguments).output()?;
    if !status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(())
}
