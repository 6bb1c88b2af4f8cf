"""How a run used several ranks. Runs of different settings are in different sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.comparison.text import pluralize

if TYPE_CHECKING:
    from jobs.choices import Reduction, Scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSetting:
    """``reduction`` is ``None`` for one rank that trains whole batches, ``scaling`` for one rank."""

    ranks: int = 1
    reduction: Reduction | None = None
    scaling: Scaling | None = None

    @property
    def is_several(self) -> bool:
        return self.ranks > 1

    @property
    def label(self) -> str:
        """``4 ranks, exact, strong scaling``; empty for one rank that trains whole batches."""
        if not self.is_several and self.reduction is None:
            return ""
        scaling = None if self.scaling is None else f"{self.scaling} scaling"
        return ", ".join(part for part in (pluralize(self.ranks, "rank"), self.reduction, scaling) if part)

    def __lt__(self, other: RankSetting) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, str, str]:
        return self.ranks, self.reduction or "", self.scaling or ""


def section_title(recipe: str, protocol: str, setting: RankSetting) -> str:
    """``lenet, matched``, and for several ranks their setting."""
    return ", ".join(part for part in (recipe, protocol, setting.label) if part)
