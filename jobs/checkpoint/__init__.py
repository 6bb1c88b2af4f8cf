"""Checkpoints: a run that is cut short goes on from the last one, to the same bits as if nothing had happened."""

from jobs.checkpoint.metadata import RunFingerprint, identity_of
from jobs.checkpoint.progress import EpochOutcome, TrainingProgress
from jobs.checkpoint.resume import Attempt, HardwareInfo, Resumed
from jobs.checkpoint.store import UNFINISHED, CheckpointStore, NullCheckpointStore

__all__ = [
    "UNFINISHED",
    "Attempt",
    "CheckpointStore",
    "EpochOutcome",
    "HardwareInfo",
    "NullCheckpointStore",
    "Resumed",
    "RunFingerprint",
    "TrainingProgress",
    "identity_of",
]
