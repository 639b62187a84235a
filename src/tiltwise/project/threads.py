"""How many cores there are, and how many of them a piece of work may use."""

import ctypes
import os
import sys
from pathlib import Path

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_KEPT_BYTES = 2**30
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of mallopt(3)


def count_cores() -> int:
    """Cores this process may use: its affinity, less where a container's quota is smaller."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def memory_GB() -> float:
    """Memory of this machine or container, GB."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()) / 1e9)
    except (OSError, ValueError):
        return machine


def environment(threads: int, cores: int) -> dict[str, str]:
    """The variables that libraries read while they load. numba may later be given up to `cores` threads; its own
    `workqueue` is the last choice, since two threads at once abort it (a worker works on one item at a time, so it
    never sees two)."""
    return {
        **{name: str(threads) for name in _VARIABLES},
        "NUMBA_NUM_THREADS": str(max(threads, cores)),
        "NUMBA_THREADING_LAYER_PRIORITY": "tbb omp workqueue",
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_ARENA_MAX": "1",
    }


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, up to 1 GB at the end of the heap, for the next array; no effect elsewhere.

    Given back after every array, the pages are fetched and zeroed anew for the next one: on arrays of 50 MB that was
    three quarters of all CPU time. Unlike variables, this reaches a process that has already started.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, 1)  # what threads of their own arenas free is given back whatever the threshold
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def prepare_process(threads: int) -> None:
    """Bound the threads of a new process, before it loads any library that computes.

    A user's script that is loaded anew here may have loaded numba already, whose most threads are then settled: it
    reads the variable again when it compiles, and stops at another number.
    """
    variables = environment(threads, threads)
    if numba := sys.modules.get("numba"):
        variables["NUMBA_NUM_THREADS"] = str(numba.config.NUMBA_NUM_THREADS)
    os.environ.update(variables)
    keep_freed_memory()
    use_threads(threads)


def use_threads(threads: int) -> None:
    """Give this many threads to the libraries that are loaded: after a stage is loaded, before it works."""
    if torch := sys.modules.get("torch"):  # looked up, not imported: a stage that needs no torch does not wait for it
        torch.set_num_threads(threads)
    if numba := sys.modules.get("numba"):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
