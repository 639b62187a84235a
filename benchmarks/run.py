"""Run one benchmark, or list them: python benchmarks/run.py [NAME]. The last line is one JSON object."""

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil

FOLDER = Path(__file__).parent


def find_benchmarks() -> dict[str, Path]:
    """Name -> file; each file has a docstring, whose first line is its help, and run() -> dict of figures."""
    files = sorted([*FOLDER.glob("accuracy/*.py"), *FOLDER.glob("speed/*.py")])
    return {path.stem.replace("_", "-"): path for path in files}


def load(path: Path):
    """The module of a file, by its name, so that processes of its own find it too."""
    sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)


class Meter:
    """Wall and CPU seconds and the highest sum of unique memory over this process and its descendants."""

    def __init__(self, interval: float = 0.5):
        self.peak = 0
        self.cpu: dict[int, float] = {}
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Meter":
        self._sample()
        self._cpu_before = sum(self.cpu.values())
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.wall = time.perf_counter() - self._start
        self._stop.set()
        self._thread.join()
        self._sample()
        self.cpu_seconds = sum(self.cpu.values()) - self._cpu_before

    def _watch(self) -> None:
        pause = self._interval
        while not self._stop.wait(pause):
            began = time.perf_counter()
            self._sample()
            pause = max(self._interval, 100 * (time.perf_counter() - began))  # looking takes a hundredth of the time

    def _sample(self) -> None:
        total = 0
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                times = process.cpu_times()
                total += process.memory_full_info().uss
                self.cpu[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        self.peak = max(self.peak, total)


def main(arguments: list[str]) -> int:
    benchmarks = find_benchmarks()
    if not arguments:
        for name, path in benchmarks.items():
            print(f"{name:18} {(load(path).__doc__ or '').strip().splitlines()[0]}")
        return 0
    name = arguments[0]
    if name not in benchmarks:
        print(f"no benchmark {name!r}; there are: {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    module = load(benchmarks[name])
    prepare = getattr(module, "prepare", None)
    prepared = prepare() if prepare else None
    with Meter() as meter:
        figures = module.run(prepared) if prepare else module.run()
    if "skipped" in figures:
        print(json.dumps(figures))
        return 0
    figures |= {
        "wall_s": round(meter.wall, 2),
        "cpu_s": round(meter.cpu_seconds, 2),
        "peak_GB": round(meter.peak / 1e9, 3),
        "threads": os.cpu_count(),
        "device": figures.get("device", "cpu"),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
