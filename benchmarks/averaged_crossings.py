"""Resolution to truth and of the oracle on curves averaged over shells that hold too few independent values.

A first crossing of single shells is a matter of chance where the curve hovers about its threshold, and moves by whole
shells; docs/explanation/resolution.md has the average.
"""

import numpy as np
import torch

from tiltwise.ops.maps.fsc_precision import crossing_with_range, independent_values
from tiltwise.ops.symmetry import symmetry_order
from tiltwise.workflows.map_scores import shell_frequency
from tiltwise.workflows.simulation import Truth


def averaged_crossings(known: Truth, scores: dict) -> dict:
    """`truth_averaged_A`, `oracle_averaged_A` (FSC 0.5) with their 95 % ranges, and `oracle_ratio_averaged`, of the
    scores of `score_maps`."""
    mask = torch.as_tensor(np.array(known.mask.data))
    frequency, values = shell_frequency(known), independent_values(len(mask), mask, symmetry_order(known.symmetry))
    (truth, truth_range), (oracle, oracle_range) = (
        crossing_with_range(frequency, torch.as_tensor(scores[key]), values, 0.5)
        for key in ("fsc_to_truth", "fsc_oracle")
    )
    return {
        "truth_averaged_A": truth,
        "truth_averaged_range_A": truth_range,
        "oracle_averaged_A": oracle,
        "oracle_averaged_range_A": oracle_range,
        "oracle_ratio_averaged": round(truth / oracle, 4),
    }
