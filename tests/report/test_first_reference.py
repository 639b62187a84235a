"""The sentence on first references: which start a half trusts, how far the others are behind, how the halves agree."""

from tiltwise.report.map_part import first_reference


def start(behind, agreement):
    return {"standard_errors_behind": behind, "agreement_with_other_half": agreement}


def test_the_starts_of_both_halves_are_told():
    halves = [
        {"trusted": 1, "starts": [start(6.04, 0.7), start(0.0, 0.96), start(0.3, 0.95)]},
        {"trusted": 0, "starts": [start(0.0, 0.94), start(2.2, 0.9)]},
    ]
    (said,) = first_reference({"halves": halves, "correlation_of_halves": 0.973})
    assert "half 1 start 2 of 3 (the others 6.0, 0.3 standard errors behind; 0.96)" in str(said)
    assert "half 2 start 1 of 2 (the others 2.2 standard errors behind; 0.94)" in str(said)
    assert "correlate by 0.97" in str(said)


def test_nothing_is_said_where_a_reference_was_given():
    assert first_reference({}) == [] and first_reference(None) == []
