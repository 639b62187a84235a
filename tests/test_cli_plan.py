"""`tiltwise plan` as a user meets it: a table, JSON, plans side by side, one line for every fault."""

import json
import subprocess
import sys

import pytest

from tiltwise.cli import main
from tiltwise.cli.plan_command import field_paths
from tiltwise.params.plan import PlanParams


@pytest.fixture
def tiltwise(capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_table_comes_first(tiltwise):
    code, out, err = tiltwise("plan", "--molecular-weight", "465e3", "--diameter", 130, "--symmetry", "O")
    assert code == 0 and not err
    assert "particles for 8 Å" in out and "minutes a series" in out and "factor of 3" in out


def test_json_is_one_object_a_plan(tiltwise):
    code, out, _ = tiltwise("plan", "--json", "--compare", "tilt_step=2,3")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [one["plan"] for one in told] == ["2", "3"]
    assert [one["figures"]["tilts"] for one in told] == [61, 41]


def test_side_by_side_from_files_and_options(tiltwise, tmp_path):
    (tmp_path / "thin.toml").write_text("[slab]\nthickness = 800.0\n")
    (tmp_path / "thick.toml").write_text("[slab]\nthickness = 3000.0\n")
    code, out, _ = tiltwise("plan", tmp_path / "thin.toml", tmp_path / "thick.toml", "--tilt-step", 4)
    assert code == 0
    assert out.splitlines()[0].split() == ["thin", "thick"] and "these plans differ in: slab.thickness" in out
    assert out.splitlines()[1].split() == ["tilts", "31", "31"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--total-exposure", "-120"), "total_exposure: input should be greater than 0"),
        (("--tilt-max", "75"), "beyond the holder's limit of 70°"),
        (("--pixel-size", "4.5"), "too coarse for 8 Å"),
        (("--scheme", "spiral"), "'spiral' is not one of"),
        (("--switch-angle", "70"), "switch_angle 70° lies outside the range"),
        (("--compare", "shape=round"), "give a parameter and values"),
        (("--compare", "scheme=spiral"), "tilting.scheme"),
        (("nowhere.toml",), "nowhere.toml: cannot be read"),
    ],
)
def test_a_fault_is_one_line(tiltwise, words, message):
    code, out, err = tiltwise("plan", *words)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1


def test_help_has_every_parameter_with_its_unit_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom tiltwise.cli import main\nsys.argv = ['tiltwise', 'plan', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'scipy', 'numba', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in field_paths(PlanParams):
        assert f"--{path[-1].replace('_', '-')} " in done.stdout
    assert "--thickness Å" in done.stdout and "--voltage kV" in done.stdout


def test_no_two_groups_share_a_name():
    names = [path[-1] for path in field_paths(PlanParams)]
    assert len(names) == len(set(names))


def test_output_holds_every_file(tiltwise, tmp_path):
    code, out, _ = tiltwise("plan", "--compare", "thickness=1000,2000", "--output", tmp_path / "session")
    assert code == 0
    for value in ("1000", "2000"):
        names = {path.name for path in (tmp_path / "session" / value).iterdir()}
        assert {"tilts.csv", "plan.rawtlt", "plan.mrc.mdoc", "plan.json", "plan.toml", "plan.html"} <= names
        assert {"serialem.txt", "pacetomo.txt", "tilt_order.txt"} <= names
    code, out, _ = tiltwise("plan", tmp_path / "session" / "1000" / "plan.toml")
    assert code == 0 and "these plans differ" not in out
