"""The planner against the simulator: four plans, three particle numbers each; worst errors of the prediction."""

from tiltwise.params.plan import BudgetParams, OpticsParams, PlanParams, SlabParams, TargetParams, TiltingParams
from tiltwise.workflows.verify_plan import verify_plan

NUMBERS, IMAGE_SIZE = (30, 100, 300), 384
PLAN = PlanParams(
    target=TargetParams(molecular_weight=4e5, diameter=120.0, resolution=10.0),
    slab=SlabParams(thickness=650.0),
    optics=OpticsParams(defocus_min=20_000.0, defocus_max=35_000.0),
    budget=BudgetParams(b_factor=250.0),
)
CHANGES = {
    "dose_symmetric": {},
    "unidirectional": {"tilting": TiltingParams(scheme="unidirectional")},
    "thick_1_over_cos": {
        "slab": SlabParams(thickness=2500.0),
        "tilting": TiltingParams(group_size=3, exposure_power=1.0),
    },
    "coarse_low_exposure_jitter": {
        "total_exposure": 40.0,
        "tilting": TiltingParams(scheme="bidirectional", tilt_min=-45, tilt_max=45, tilt_step=5),
        "budget": BudgetParams(b_factor=250.0, shift_error=2.0, rotation_error=2.0),
    },
}
"""What each plan changes of the first."""


def run() -> dict:
    rows = {}
    for name, changes in CHANGES.items():
        for row in verify_plan(PLAN.model_copy(update=changes), particles=NUMBERS, image_size=IMAGE_SIZE):
            rows[f"{name}_{row['particles']}"] = row
    worst = {
        key: max(max(row[key], 1 / row[key]) for row in rows.values()) for key in ("factor_in_N", "factor_in_N_truth")
    }
    shown = ("predicted_A", "measured_half_maps_A", "measured_truth_A", "factor_in_N", "factor_in_N_truth")
    told = {f"{name}_{key}": round(row[key], 3) for name, row in rows.items() for key in shown}
    return {
        "plans": len(CHANGES),
        "particle_numbers": len(NUMBERS),
        "worst_factor_in_N": round(worst["factor_in_N"], 3),
        "worst_factor_in_N_truth": round(worst["factor_in_N_truth"], 3),
        "worst_dresolution_A": round(max(abs(row["dresolution_A"]) for row in rows.values()), 3),
        **told,
    }
