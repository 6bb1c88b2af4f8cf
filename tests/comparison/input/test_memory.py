"""What a merge of many reports keeps in memory."""

from __future__ import annotations

import subprocess
import sys

from jobs.comparison.input import report_collection
from jobs.comparison.input.run_summary import ReportLocation, summarize
from tests.support.reports import make_report


def test_summarize_of_a_gpu_run_with_five_epochs_keeps_1600_bytes() -> None:
    run = summarize(make_report(gpu=True, epochs=5), source="run.json", location=ReportLocation())
    own = set(run.__slots__) - {*report_collection._SHARED_FIELDS}
    assert sys.getsizeof(run) + sum(sys.getsizeof(getattr(run, name)) for name in own) <= 1600


def test_build_imports_no_scipy_stats() -> None:
    code = "import sys, jobs.comparison.build; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
