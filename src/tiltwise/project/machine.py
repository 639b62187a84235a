"""What this machine offers a run, and what is missing."""

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tiltwise.project.threads import count_cores, memory_GB

Verdict = Literal["good", "note", "missing"]

_PROBE_SECONDS = 120
_BUSY = "the machine is busy; ask again when it is not"
_PROBE = """
import importlib, json
found = {"torch": None, "devices": [], "layers": [], "error": ""}
for layer, module in (("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")):
    try:
        importlib.import_module("numba.np.ufunc." + module)
        found["layers"].append(layer)
    except Exception:
        pass
try:
    import torch
    found["torch"] = torch.__version__
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found["devices"].append([about.name, about.total_memory / 1e9])
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
_FEW_FILES = 1024
_LITTLE_DISK_GB = 20.0
_LITTLE_MEMORY_GB = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """What was looked at."""
    found: str
    """What there is, with its unit."""
    verdict: Verdict
    """good; note: works, but see the advice; missing: needed and not there."""
    advice: str = ""
    """What to do; empty where all is well."""


def examine_machine(folder: Path) -> list[Finding]:
    """Cores, memory, disk space of `folder`, libraries, GPU and schedulers. What loads slowly or could crash (torch,
    numba) is asked in a process of its own."""
    probe = _ask_libraries()
    return [
        _python(),
        Finding(what="system", found=f"{platform.system()} {platform.release()} {platform.machine()}", verdict="good"),
        _cores(),
        _memory(),
        _disk(folder),
        _open_files(),
        *_packages(),
        _torch(probe),
        _gpu(probe),
        _threading(probe),
        _scheduler(),
    ]


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    advice = "" if good else "tiltwise needs Python 3.11 or newer"
    return Finding(
        what="Python",
        found=f"{platform.python_version()} ({sys.executable})",
        verdict="good" if good else "missing",
        advice=advice,
    )


def _cores() -> Finding:
    usable, there = count_cores(), os.cpu_count() or 1
    return Finding(what="cores", found=f"{usable} usable of {there}", verdict="good")


def _memory() -> Finding:
    total = memory_GB()
    little = total < _LITTLE_MEMORY_GB
    free = _available_GB()
    found = f"{total:.1f} GB" + ("" if free is None else f", {free:.1f} GB free now")
    advice = "a tomogram of a 4k series takes about 4 GB; lower memory_GB and workers in [run]" if little else ""
    return Finding(what="memory", found=found, verdict="note" if little else "good", advice=advice)


def _available_GB() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024 / 1e9
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _disk(folder: Path) -> Finding:
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = os.access(place, os.W_OK)
    advice = "" if writable else f"{place} cannot be written to"
    if writable and free < _LITTLE_DISK_GB:
        advice = "a tomogram of 1000 × 1000 × 300 voxels takes 1.2 GB"
    verdict: Verdict = "missing" if not writable else "note" if advice else "good"
    return Finding(what="disk", found=f"{free:.1f} GB free at {place}", verdict=verdict, advice=advice)


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < _FEW_FILES
    return Finding(
        what="open files",
        found="unlimited" if soft == resource.RLIM_INFINITY else str(soft),
        verdict="note" if few else "good",
        advice=f"many workers need more: ulimit -n {4 * _FEW_FILES}" if few else "",
    )


def _packages() -> list[Finding]:
    """Every library that tiltwise requires, against the lowest version it takes; extras are left out."""
    findings = []
    for requirement in metadata.requires("tiltwise") or ():
        if "extra ==" in requirement:
            continue
        name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        least = re.search(r">=\s*([0-9][0-9.]*)", requirement)
        findings.append(_package(name, least[1] if least else "0"))
    return findings


def _package(name: str, least: str) -> Finding:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(what=name, found="not installed", verdict="missing", advice=f"pip install '{name}>={least}'")
    old = _numbers(found) < _numbers(least)
    advice = f"pip install '{name}>={least}'" if old else ""
    return Finding(what=name, found=found, verdict="missing" if old else "good", advice=advice)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def _ask_libraries() -> dict[str, Any]:
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"slow": f"not loaded within {_PROBE_SECONDS} s"}
    except (OSError, ValueError, IndexError):
        return {"error": "the process that loads torch and numba died"}


def _torch(probe: dict[str, Any]) -> Finding:
    if probe.get("torch"):
        return Finding(what="torch loads", found=probe["torch"], verdict="good")
    if "slow" in probe:
        return Finding(what="torch loads", found=probe["slow"], verdict="note", advice=_BUSY)
    fault = " ".join(str(probe.get("error", "")).split())[:200]
    return Finding(
        what="torch loads", found=fault or "no", verdict="missing", advice="install torch again; see the README"
    )


def _gpu(probe: dict[str, Any]) -> Finding:
    devices = probe.get("devices") or []
    if devices:
        return Finding(what="GPU", found=", ".join(f"{name} {size:.0f} GB" for name, size in devices), verdict="good")
    if shutil.which("nvidia-smi"):
        advice = "there is a driver, but this torch sees no GPU: install torch's CUDA build"
        return Finding(what="GPU", found="none that torch sees", verdict="note", advice=advice)
    return Finding(what="GPU", found="none; everything runs on the CPU", verdict="good")


def _threading(probe: dict[str, Any]) -> Finding:
    if "slow" in probe:
        return Finding(what="numba threads", found=probe["slow"], verdict="note", advice=_BUSY)
    layers = probe.get("layers") or []
    found = ", ".join(layers) or "none"
    if {"tbb", "omp"} & set(layers):
        return Finding(what="numba threads", found=found, verdict="good")
    return Finding(
        what="numba threads",
        found=found,
        verdict="note" if layers else "missing",
        advice="install tbb: the kernels run, but two at once in one process would abort it"
        if layers
        else "install numba",
    )


def _scheduler() -> Finding:
    found = "Slurm (sbatch)" if shutil.which("sbatch") else "none; runs on this machine"
    return Finding(what="queue", found=found, verdict="good")
