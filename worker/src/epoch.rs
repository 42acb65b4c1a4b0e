//! Which master counts: a worker ignores what comes with a lower epoch than it has seen.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flota_proto::mqtt::{MasterStatus, Presence};
use tracing::warn;

/// The highest epoch that a master welcomed this worker with. MQTT is only compared with it: anyone who may publish there could
/// else make the worker deaf to its master by one message.
#[derive(Debug, Default)]
pub(crate) struct EpochGate {
    highest: AtomicU64,
    warned: AtomicU64,
}

impl EpochGate {
    /// A master on the report stream has `epoch`: from now lower ones don't count. Whether this one does.
    pub(crate) fn welcomed(&self, epoch: u64) -> bool {
        self.highest.fetch_max(epoch, Ordering::AcqRel);
        self.admits(epoch)
    }

    /// Whether what comes over MQTT with `epoch` counts.
    pub(crate) fn admits(&self, epoch: u64) -> bool {
        let highest = self.highest.load(Ordering::Acquire);
        if epoch >= highest {
            return true;
        }
        // Once a pair of epochs, not once a message.
        if self.warned.swap(highest, Ordering::AcqRel) != highest {
            warn!(
                epoch,
                highest,
                "ignored a master that a newer one has replaced; if the master's store was reset, restart this worker"
            );
        }
        false
    }
}

/// The master as the worker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) epoch: u64,
    pub(crate) boot_id: String,
    /// Plain `host:port`.
    pub(crate) endpoint: String,
}

/// What a master/status message means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A master that was not known: register with it.
    New,
    /// Nothing new.
    Known,
}

/// Keeps the newest master, from its status and from its tasks.
#[derive(Debug, Default)]
pub(crate) struct Masters {
    newest: Mutex<Option<Master>>,
}

impl Masters {
    /// Takes in a `master/status` that the gate admitted.
    pub(crate) fn status(&self, status: &MasterStatus) -> (Sighting, Option<Master>) {
        if status.status == Presence::Offline {
            return (Sighting::Known, None);
        }
        let seen =
            Master { epoch: status.epoch, boot_id: status.boot_id.clone(), endpoint: status.grpc_endpoint.clone() };
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new = newest.as_ref().is_none_or(|n| n.boot_id != seen.boot_id || n.epoch < seen.epoch);
        let changed = newest.as_ref() != Some(&seen);
        *newest = Some(seen.clone());
        (if new { Sighting::New } else { Sighting::Known }, changed.then_some(seen))
    }

    /// Takes in the endpoint of a tasks message that the gate admitted; the status of the same epoch goes before it.
    pub(crate) fn tasks(&self, epoch: u64, endpoint: &str) -> Option<Master> {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.as_ref().is_some_and(|n| n.epoch >= epoch) {
            return None;
        }
        let seen = Master { epoch, boot_id: String::new(), endpoint: endpoint.to_owned() };
        *newest = Some(seen.clone());
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use flota_proto::Timestamp;

    use super::*;

    fn status(presence: Presence, epoch: u64, boot_id: &str, endpoint: &str) -> MasterStatus {
        MasterStatus {
            status: presence,
            grpc_endpoint: endpoint.into(),
            web_url: String::new(),
            version: String::new(),
            epoch,
            boot_id: boot_id.into(),
            timestamp: Timestamp(0),
        }
    }

    #[test]
    fn a_lower_epoch_than_a_master_had_on_the_stream_is_ignored() {
        let gate = EpochGate::default();
        assert!(gate.welcomed(3));
        assert!(gate.admits(3));
        assert!(!gate.admits(2));
        assert!(!gate.welcomed(2));
        assert!(gate.welcomed(4));
        assert!(!gate.admits(3));
    }

    #[test]
    fn a_message_with_a_forged_epoch_does_not_make_the_worker_deaf() {
        let gate = EpochGate::default();
        assert!(gate.welcomed(3));
        assert!(gate.admits(u64::MAX), "a new master tells of itself over MQTT first");
        assert!(gate.admits(3), "the master of the stream still counts");
        assert!(gate.welcomed(4));
    }

    #[test]
    fn a_master_with_a_new_boot_id_or_a_higher_epoch_is_new() {
        let masters = Masters::default();
        assert_eq!(masters.status(&status(Presence::Online, 1, "a", "h:1")).0, Sighting::New);
        assert_eq!(masters.status(&status(Presence::Online, 1, "a", "h:1")), (Sighting::Known, None));
        assert_eq!(masters.status(&status(Presence::Offline, 1, "a", "h:1")), (Sighting::Known, None));
        assert_eq!(masters.status(&status(Presence::Online, 1, "b", "h:1")).0, Sighting::New);
        let (sighting, master) = masters.status(&status(Presence::Online, 2, "b", "h:2"));
        assert_eq!((sighting, master.unwrap().endpoint.as_str()), (Sighting::New, "h:2"));
    }

    #[test]
    fn tasks_name_the_endpoint_only_until_the_status_does() {
        let masters = Masters::default();
        assert_eq!(masters.tasks(1, "h:1").unwrap().endpoint, "h:1");
        assert_eq!(masters.tasks(1, "h:2"), None);
        let (sighting, master) = masters.status(&status(Presence::Online, 1, "a", "h:3"));
        assert_eq!((sighting, master.unwrap().endpoint.as_str()), (Sighting::New, "h:3"));
        assert_eq!(masters.tasks(1, "h:2"), None);
        assert_eq!(masters.tasks(2, "h:2").unwrap().epoch, 2);
    }
}
