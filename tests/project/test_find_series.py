"""Which file stands for a series."""

from tiltwise.project.importing import find_series


def test_the_stack_stands_for_its_mdoc_unless_the_separate_images_are_meant(tmp_path):
    stack, mdoc = tmp_path / "TS_01.mrc", tmp_path / "TS_01.mrc.mdoc"
    for path in (stack, mdoc):
        path.touch()
    assert find_series([mdoc]) == [stack]
    assert find_series([mdoc], separate=True) == [mdoc]
    assert find_series([stack], separate=True) == [stack]
    (tmp_path / "TS_01.rawtlt").touch()
    (tmp_path / "._TS_01.mrc.mdoc").touch()
    assert find_series([tmp_path]) == [stack]
    assert find_series([tmp_path], separate=True) == [mdoc]
