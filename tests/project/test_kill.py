"""kill -9 at random moments, then run again: the same digests as a run that was never broken."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_run import ALL_ITEMS, digests

from tiltwise.project.recipe_text import set_params
from tiltwise.project.run import run_project

PROGRAM = Path(__file__).with_name("tiny_run.py")


def start(project, executor):
    command = [sys.executable, str(PROGRAM), "run", str(project), "--executor", executor, "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_first_part(project, process, timeout=60.0):
    """Until the run has begun to work, so that a kill meets it at work and not while it loads."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None and not list(project.glob("*/*.part")):
        time.sleep(0.005)


@pytest.mark.parametrize(("executor", "kills", "span"), [("serial", 6, 0.5), ("local", 2, 0.6)])
def test_killed_runs_end_in_the_same_digests(project, tmp_path, executor, kills, span):
    for step in ("shift", "fill", "mean"):
        set_params(project, step, {"seconds": 0.1})
    unbroken = tmp_path / "unbroken"
    shutil.copytree(project, unbroken)
    run_project(unbroken, executor="serial")
    rng = random.Random(11)
    killed = 0
    for _ in range(kills):
        process = start(project, executor)
        wait_for_first_part(project, process)
        time.sleep(rng.uniform(0.0, span))
        killed += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert killed
    process = start(project, executor)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert digests(project) == digests(unbroken)
    assert {path.parent.name + "/" + path.name for path in project.glob("*/*") if path.is_dir()} == ALL_ITEMS | {
        f"import/{name}" for name in "ABC"
    }
