"""The lessons run, and teach what they say."""

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tiltwise.cli import tiltwise

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"lesson_{name}", EXAMPLES / name / "lesson.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signal_to_noise_grows_with_the_root(capsys):
    """The correlation over 48² px, half of them independent, has an error of 0.03: 5 % of the SNR at N = 16 and 3 % at
    64, which leaves the slope an error of 0.05."""
    found = load("signal_to_noise").main(seed=1)
    slope = np.log(found[64] / found[16]) / np.log(4)
    assert slope == pytest.approx(0.5, abs=0.15)
    assert found[1] < 0.5 and found[64] > 1
    assert "Four times as many particles" in capsys.readouterr().out


def test_resolution_is_honest_only_with_independent_noise(capsys):
    lesson = load("resolution")
    halves, truth, shared, nothing = lesson.main(seed=1).values()
    nyquist = 2 * lesson.PIXEL_SIZE
    assert halves == pytest.approx(truth, rel=0.2) and truth > 1.2 * nyquist
    assert shared == pytest.approx(nyquist, rel=0.02)
    assert nothing < 1.2 * nyquist
    assert "images of nothing" in capsys.readouterr().out


SAYS = """#!/bin/sh
echo "$@" >> "$LOG"
[ "$1" = new ] && mkdir -p "$2" && touch "$2/project.toml"
[ "$1" != run ] || exit "${RUN_ENDS:-0}"
"""


def run_deposit(folder, *arguments, run_ends=0):
    """The commands that the script gives to a program of tiltwise's name, and its exit code."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "tiltwise").write_text(SAYS)
    (folder / "bin" / "tiltwise").chmod(0o755)
    log = folder / "log"
    log.write_text("")
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LOG": str(log), "RUN_ENDS": str(run_ends)}
    script = EXAMPLES / "public_data" / "run.sh"
    ended = subprocess.run([str(script), *arguments], cwd=folder, env=environment, capture_output=True, check=False)
    return [line.split() for line in log.read_text().splitlines()], ended.returncode


@pytest.mark.parametrize("name", ["empiar-10164", "empiar-10304", "empiar-10491"])
def test_a_deposit_is_one_command_that_can_be_given_again(tmp_path, name):
    (tmp_path / "TS_1.mrc").touch()
    (tmp_path / "TS_1.mdoc").touch()
    arguments = (name, str(tmp_path), "reference.mrc", "model.cif", "gain.mrc")
    given, code = run_deposit(tmp_path, *arguments)
    assert code == 0
    assert [command[0] for command in given] == ["new", "import", "run", "bfactor", "model-fsc", "export"]
    for command in given:  # every command and option is one of ours
        known = {flag for option in tiltwise.commands[command[0]].params for flag in option.opts}
        assert {word for word in command if word.startswith("--")} <= known
    again, code = run_deposit(tmp_path, *arguments, run_ends=3)
    assert code == 0 and [command[0] for command in again] == ["import", "run", "bfactor", "model-fsc", "export"]
    assert run_deposit(tmp_path, *arguments, run_ends=1)[1] == 1


def test_an_unknown_deposit_is_refused(tmp_path):
    assert run_deposit(tmp_path, "empiar-1", str(tmp_path)) == ([], 2)
