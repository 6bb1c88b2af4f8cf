"""The table of exit codes, for shells, CI jobs and the Kubernetes failure policy."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """The exit code of a program; :attr:`meaning` is its line in the documentation."""

    meaning: str

    DONE = 0, "done"
    INTERNAL_ERROR = 1, "an error of the program itself: please report it"
    BAD_INPUT = 2, "bad input: an option, a file or a combination that cannot be used"
    NO_USABLE_GPU = 3, "no usable GPU, and one was asked for; or `doctor` found that it computes or reports wrongly"
    BELOW_REFERENCE = 4, "trained, but the accuracy is below the recipe's reference"
    DATASET_REFUSED = 5, "dataset refused: missing, damaged or not what its name says"
    REPORT_NOT_WRITABLE = 6, "the report or another output could not be written"
    FRAMEWORK_MISSING = 7, "not installed in this environment: the framework, or an extra that the command needs"
    DIVERGED = 8, "training diverged: the loss is no longer finite"
    OUT_OF_MEMORY = 9, "out of memory, the GPU's or the host's"
    NOT_COMPARABLE = 10, "reports that are not comparable were given to one comparison"
    REGRESSION = 11, "slower, less accurate or failing more often than the baseline"
    RANKS_NOT_CONNECTED = 12, "the ranks of one run could not connect: a port in use, or a rank that did not start"
    PEER_LOST = 13, "another rank of the same run ended or could not be reached"
    INTERRUPTED_BY_KEYBOARD = 130, "interrupted by SIGINT (Ctrl-C)"
    INTERRUPTED = 143, "interrupted by SIGTERM, as Kubernetes and docker stop do"

    def __new__(cls, value: int, meaning: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member
