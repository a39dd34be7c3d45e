//! What the kernel says about the processes of a store: memory, bytes to disk, processor time.
//!
//! Linux only, from `/proc`.

use std::fs::read_to_string;
use std::io;
use std::time::Duration;

/// Length of one tick of the processor times in `/proc`, the same on all Linux ports of Rust.
const TICK: Duration = Duration::from_millis(10);

/// Counters of some processes, summed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes that were on their way to a disk, rewritten ones counted again.
    pub write_bytes: u64,
    /// Time on processors, in user code and in the kernel.
    pub cpu: Duration,
}

impl Usage {
    /// Reads the counters of `pids`.
    ///
    /// # Errors
    ///
    /// A process that is gone, or another user's.
    pub fn read(pids: &[u32]) -> io::Result<Self> {
        let mut all = Self::default();
        for pid in pids {
            let io = read_to_string(format!("/proc/{pid}/io"))?;
            all.write_bytes += field(&io, "write_bytes:")?;
            let stat = read_to_string(format!("/proc/{pid}/stat"))?;
            all.cpu += cpu_time(&stat)?;
        }
        Ok(all)
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            cpu: self.cpu.saturating_sub(earlier.cpu),
        }
    }
}

/// Resident memory of one process, bytes.
///
/// # Errors
///
/// A process that is gone.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmRSS:")? * 1024)
}

/// The most memory that one process had since [`forget_peak`], bytes.
///
/// # Errors
///
/// A process that is gone.
pub fn peak_bytes(pid: u32) -> io::Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmHWM:")? * 1024)
}

/// Has the kernel take a process's memory of now for the most that it had.
///
/// # Errors
///
/// A process that is gone, or another user's.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// The number behind `name` at the begin of a line.
fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no {name} in the kernel's answer")))
}

/// User and system time of a `stat` line. The name in it may contain spaces and brackets.
fn cpu_time(stat: &str) -> io::Result<Duration> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut times = after_name.split_whitespace().skip(11).take(2);
    let mut next = || times.next().and_then(|ticks| ticks.parse::<u32>().ok());
    match (next(), next()) {
        (Some(user), Some(system)) => Ok(TICK * (user + system)),
        _ => Err(io::Error::other("no times in the kernel's answer")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn this_process_has_memory_and_counters() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 1 << 20);
        Usage::read(&[pid]).unwrap();
    }

    #[test]
    fn the_peak_of_memory_is_measured_anew() {
        let pid = std::process::id();
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let before = peak_bytes(pid).unwrap();
        forget_peak(pid).unwrap();
        assert!(peak_bytes(pid).unwrap() <= before);
        assert!(peak_bytes(pid).unwrap() >= resident_bytes(pid).unwrap() / 2);
    }

    #[test]
    fn names_with_brackets_do_not_shift_the_times() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_time(stat).unwrap(), Duration::from_millis(420));
    }
}
