"""Processes of bounded threads, whatever a user's script has loaded before."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numba

from tiltwise.project.threads import prepare_process


@numba.njit(parallel=True)
def total(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found


if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare_process, initargs=(1,)) as pool:
        print(pool.submit(total, 10).result())
"""


def test_a_script_that_has_loaded_numba_may_start_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    source = str(Path(__file__).parents[2] / "src")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "OMP"))}
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    told = {"NUMBA_NUM_THREADS": "2", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, str(script)], env=own | told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "45"
