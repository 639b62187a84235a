"""The same input gives the same bits with one thread and with three."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def digests(threads):
    """What the stages gave in a process of its own, a line for each."""
    source = str(HERE.parents[1] / "src")
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    script = [sys.executable, str(HERE / "same_bits_run.py"), str(threads)]
    done = subprocess.run(script, env=os.environ | variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_results_do_not_depend_on_the_number_of_threads():
    assert digests(1) == digests(3)
