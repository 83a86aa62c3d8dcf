//! Which core does what: servers on one, load on the other, so that neither takes time from the other.

use rustix::thread::{CpuSet, sched_setaffinity};

pub const SERVER: usize = 0;
pub const LOAD: usize = 1;

/// Does that on these cores. Threads and processes that it starts stay there; the caller goes back to the load's.
pub fn on_cores<T>(cores: &[usize], work: impl FnOnce() -> T) -> T {
    stay_on(cores);
    let done = work();
    stay_on(&[LOAD]);
    done
}

/// Binds the calling thread.
pub fn stay_on(cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set)
        .unwrap_or_else(|error| panic!("cannot stay on the cores {cores:?} ({error}): two cores are needed"));
}
