"""What all sections of a recipe share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SIZE_MULTIPLE = 16
"""Input heights and widths must be multiples of this: the encoder's output stride (paper Sec. 2.3).

Some of the networks that ET-Net is compared with need multiples of more, see `etnet.config.networks`.
"""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the recipe; unknown keys are errors and values cannot be changed after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True)
