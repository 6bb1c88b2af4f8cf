"""The errors that users see: one line that says what failed, the value and the next step."""

from __future__ import annotations

from jobs.exit_codes import ExitCode


class JobError(Exception):
    """An expected failure. Its text is shown to the user as it is; its exit code ends the program."""

    exit_code = ExitCode.INTERNAL_ERROR


class BadInput(JobError):
    exit_code = ExitCode.BAD_INPUT


class NoUsableGpu(JobError):
    exit_code = ExitCode.NO_USABLE_GPU


class DeviceCheckFailed(JobError):
    """The GPU is there, and a check of ``doctor --device gpu`` shows that it cannot be used for a measurement."""

    exit_code = ExitCode.NO_USABLE_GPU


class NotMeasured(JobError):
    """A check of ``doctor --device gpu`` cannot be done here, and no training with the defaults is in doubt."""


class DatasetRefused(JobError):
    exit_code = ExitCode.DATASET_REFUSED


class NotWritable(JobError):
    """A report, a comparison or exported weights could not be written."""

    exit_code = ExitCode.REPORT_NOT_WRITABLE


class FrameworkMissing(JobError):
    exit_code = ExitCode.FRAMEWORK_MISSING


class OutOfMemory(JobError):
    exit_code = ExitCode.OUT_OF_MEMORY


class NotComparable(JobError):
    exit_code = ExitCode.NOT_COMPARABLE


class RanksNotConnected(JobError):
    """The ranks of one run did not all start, or could not reach one another."""

    exit_code = ExitCode.RANKS_NOT_CONNECTED


class PeerLost(JobError):
    """Another rank of the same run ended, so that this one cannot go on."""

    exit_code = ExitCode.PEER_LOST

    @property
    def is_interruption(self) -> bool:
        """Whether a signal to the other rank ended the run, and not a failure."""
        return self.exit_code != ExitCode.PEER_LOST
