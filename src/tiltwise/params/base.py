"""What every params model shares: it is frozen, and an unknown key is an error."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """A step's parameters. Each field has a type with unit, bounds, a default and one sentence of description."""

    model_config = ConfigDict(frozen=True, extra="forbid")
