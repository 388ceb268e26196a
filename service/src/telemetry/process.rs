//! What the system says about this process; nothing where there is no `/proc`.

use std::fs;

/// The process, as the system sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Bytes of memory.
    pub resident_bytes: Option<u64>,
    /// Files, sockets and pipes.
    pub open_files: Option<u64>,
    /// The most it may have.
    pub open_files_most: Option<u64>,
    /// Seconds of all threads together.
    pub cpu_seconds: Option<f64>,
}

/// Source: proc_pid_stat(5), whose times are in these parts of a second on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// This process, now.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            resident_bytes: field(&status, "VmRSS:").map(|kibibytes| kibibytes << 10),
            // One of them is the listing itself.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            open_files_most: field(&limits, "Max open files"),
            cpu_seconds: cpu_seconds(&stat),
        }
    }
}

/// The first number after `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is a name in parentheses, which may hold anything.
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse_it() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_knows_this_process() {
        let now = Process::now();
        assert!(now.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(now.open_files.is_some_and(|count| count > 2));
        assert!(now.open_files <= now.open_files_most);
        assert!(now.cpu_seconds.is_some());
    }
}
