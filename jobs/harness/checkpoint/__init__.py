"""Checkpoints: a run that is cut short goes on from the last one, to the same bits as if nothing had happened."""

from jobs.harness.checkpoint.attempt import Attempt, Resumed, Whereabouts
from jobs.harness.checkpoint.keeper import UNFINISHED, Keeper, NoKeeper
from jobs.harness.checkpoint.state import Identity, identity_of

__all__ = ["UNFINISHED", "Attempt", "Identity", "Keeper", "NoKeeper", "Resumed", "Whereabouts", "identity_of"]
