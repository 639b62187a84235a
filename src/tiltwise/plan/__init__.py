"""A session before the microscope: orders of tilts, exposure, and what resolution they will give.

from tiltwise.plan import make_plan
from tiltwise.params.plan import PlanParams
make_plan(PlanParams(pixel_size=1.35)).resolution
"""

from tiltwise.plan.session import Plan, make_plan

__all__ = ["Plan", "make_plan"]
