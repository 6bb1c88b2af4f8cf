"""The place of one rank among all: its number, and where the others are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Engine = Literal["torchrun", "tf_config", "indexed_job"]
"""What started the ranks and says where they are."""


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """One process of a run over several.

    ``addresses`` are host and port for the framework's own connections: one for each rank, or with ``torchrun`` that
    of rank 0 alone. ``control`` is where rank 0 listens for :class:`~jobs.ranks.channel.Channel`.
    """

    rank: int
    size: int
    local_rank: int
    addresses: tuple[tuple[str, int], ...]
    control: tuple[str, int]
    engine: Engine
    token: str = ""
    """Ranks with another token are of another run."""
