//! Priority, place and used time of the calling thread.
#![allow(unsafe_code)]

use std::time::Duration;

/// Lets threads with a lower `nice` (0 to 19) go first. It can't be taken back: for threads of one's own.
#[cfg(target_os = "linux")]
pub fn lower_priority(nice: u8) {
    // On Linux this is about the calling thread. SAFETY: takes numbers only; where it is refused nothing happens.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, libc::c_int::from(nice.min(19))) };
}

/// Binds the calling thread to one processor; where that is not to be had nothing happens.
#[cfg(target_os = "linux")]
pub fn bind(cpu: usize) {
    if cpu >= libc::CPU_SETSIZE as usize {
        return;
    }
    // SAFETY: all zero is the empty set, and the number lies within it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// How long the calling thread has had a processor; zero where the system does not say.
#[must_use]
pub fn cpu_time() -> Duration {
    // SAFETY: all zero is a valid value of this plain struct, which the call fills.
    let (failed, time) = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        (libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time), time)
    };
    let whole = u64::try_from(time.tv_sec).ok().zip(u32::try_from(time.tv_nsec).ok());
    whole.filter(|_| failed == 0).map_or(Duration::ZERO, |(seconds, nanos)| Duration::new(seconds, nanos))
}

/// Lets threads with a lower `nice` go first; not on this system.
#[cfg(not(target_os = "linux"))]
pub fn lower_priority(_nice: u8) {}

/// Binds the calling thread to one processor; not on this system.
#[cfg(not(target_os = "linux"))]
pub fn bind(_cpu: usize) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_time_of_a_thread_is_that_of_its_work() {
        let before = super::cpu_time();
        let mut sum = 0_u64;
        while super::cpu_time() < before + std::time::Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        let worked = super::cpu_time();
        let other = std::thread::spawn(super::cpu_time).join().unwrap();
        assert!(other < worked, "{other:?} {worked:?}");
    }

    #[test]
    fn a_thread_lowers_and_binds_itself_only() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let allowed = |text: &str| text.lines().find(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned);
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().to_owned()
        };
        let (before, cpus_before) = (nice(), allowed(&status()));
        std::thread::spawn(move || {
            super::lower_priority(7);
            super::bind(0);
            assert_eq!((nice().as_str(), allowed(&status()).as_deref()), ("7", Some("Cpus_allowed_list:\t0")));
        })
        .join()
        .unwrap();
        let nice_now = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        assert_eq!(nice_now.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap(), before);
        assert_eq!(allowed(&status()), cpus_before);
    }
}
