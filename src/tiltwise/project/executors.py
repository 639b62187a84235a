"""Where tasks run: here one after another, or in Dask workers. One small protocol, so that more can come."""

import contextlib
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tiltwise.data.errors import InputError
from tiltwise.data.progress import Progress
from tiltwise.project.tasks import Outcome, Task, one_line, run_task
from tiltwise.project.threads import environment

_PROGRESS = ".progress.json"
_POLL_S = 0.2
_CONNECT_S = 30


class Listening(Protocol):
    """Told how far a task is."""

    def __call__(self, task: Task, fraction: float, message: str) -> None: ...


class Executor(Protocol):
    """Takes tasks and gives them back when they have ended, in any order."""

    def submit(self, task: Task) -> None:
        """Start a task, or keep it until `next_ended`."""
        ...

    def next_ended(self, listen: Listening) -> tuple[Task, Outcome]:
        """Wait for the next task that ends; no record in its part folder means that the worker died."""
        ...

    def close(self) -> None:
        """Stop whatever still runs."""
        ...


class SerialExecutor:
    """Runs each task in this process, in the order of submission."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def next_ended(self, listen: Listening) -> tuple[Task, Outcome]:
        task = self._waiting.popleft()
        return task, run_task(task, lambda fraction, message: listen(task, fraction, message))

    def close(self) -> None:
        self._waiting.clear()


class DaskExecutor:
    """Runs tasks in the workers of a Dask scheduler: one made on this machine for the run, or one already there."""

    def __init__(self, *, workers: int, threads: int, cores: int, address: str | None = None) -> None:
        import dask
        from distributed import Client

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what a dead worker costs is told once, by the run
        self._tasks: dict[Any, Task] = {}
        self._planned: set[Path] = set()
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(_environment(environment(threads, cores)))
        self._closing.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 0,
                    "distributed.admin.large-graph-warning-threshold": "1GB",
                    "distributed.nanny.pre-spawn-environ": environment(threads, cores),
                }
            )
        )
        try:
            where = address or self._closing.enter_context(_local_cluster(workers))
            self._client = self._closing.enter_context(Client(where, timeout=_CONNECT_S))
        except OSError as error:
            self._closing.close()
            raise InputError(f"no Dask scheduler at {address or 'this machine'}: {error}") from error
        if address is None:
            self._client.run(ignore_interrupt)

    def submit(self, task: Task) -> None:
        future = self._client.submit(run_with_progress_file, task, pure=False, retries=0)
        self._tasks[future] = task

    def next_ended(self, listen: Listening) -> tuple[Task, Outcome]:
        from distributed import wait

        while True:
            with contextlib.suppress(TimeoutError):
                wait(list(self._tasks), timeout=_POLL_S, return_when="FIRST_COMPLETED")
            ended = next((future for future in self._tasks if future.done()), None)
            if ended is not None:
                task = self._tasks.pop(ended)
                return task, _outcome(ended)
            for task in self._tasks.values():
                _tell(task, listen, self._planned)

    def close(self) -> None:
        self._tasks.clear()
        self._closing.close()


def _local_cluster(workers: int) -> Any:
    """Worker processes of this machine alone, with one task each at a time and no limit on their memory."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


def open_executor(kind: str, *, workers: int, threads: int, cores: int) -> Executor:
    """The executor of this name: serial, local, or tcp://host:port."""
    if kind == "serial":
        return SerialExecutor()
    return DaskExecutor(workers=workers, threads=threads, cores=cores, address=None if kind == "local" else kind)


def ignore_interrupt() -> None:
    """In a worker: leave Ctrl-C to the run, which ends its workers; each of them would say so at length."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_with_progress_file(task: Task) -> Outcome:
    """run_task in a worker process; how far it is stands in a small file, which any other process can read."""
    path = task.part / _PROGRESS
    try:
        return run_task(task, _file_progress(path))
    finally:
        path.unlink(missing_ok=True)


def _file_progress(path: Path) -> Progress:
    last, plan = 0.0, ""

    def report(fraction: float, message: str) -> None:
        nonlocal last, plan
        now = time.monotonic()
        plan = plan or (message if fraction == 0 else "")
        if now - last < _POLL_S and fraction < 1:
            return
        last = now
        part = path.with_suffix(".new")
        part.write_text(json.dumps([float(fraction), str(message), plan]))
        os.replace(part, path)

    return report


def _tell(task: Task, listen: Listening, planned: set[Path]) -> None:
    """How far a task is; before that, once, what it said before it began, which a later message may have replaced."""
    try:
        fraction, message, plan = json.loads((task.part / _PROGRESS).read_text())
    except (OSError, ValueError):
        return
    if plan and task.part not in planned:
        planned.add(task.part)
        listen(task, 0.0, plan)
    if fraction > 0:
        listen(task, fraction, message)


def _outcome(future: Any) -> Outcome:
    if future.status == "finished":
        return future.result()
    fault = future.exception()
    died = type(fault).__name__ == "KilledWorker"
    return Outcome(
        error="the worker process died; too little memory is the usual cause" if died else one_line(fault), seconds=0.0
    )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for workers to inherit, also for those that replace dead ones; restored at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
