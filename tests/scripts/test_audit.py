from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scripts import audit

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]

LOCK = """
[[package]]
name = "torch"
version = "2.15.0+cu132"
source = { registry = "anywhere" }
[[package]]
name = "mnist-jobs"
version = "0.1.0"
source = { editable = "." }
"""


def test_every_package_of_the_lock_is_asked_for() -> None:
    assert audit.pins(LOCK) == ["torch==2.15.0"]
    names = {pin.partition("==")[0] for pin in audit.pins((ROOT / "uv.lock").read_text(encoding="utf-8"))}
    assert {"torch", "tensorflow", "typer", "nvidia-ml-py", "pytest"} <= names


def test_a_vulnerability_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
        {"name": "odd", "skip_reason": "not found"},
    ]
    assert audit.judge(found) == 1
    out = capsys.readouterr().out
    assert "bad 2: PYSEC-1, fixed in 3" in out
    assert "2 packages, 1 known vulnerabilities; nothing is known of odd" in out
    assert audit.judge(found[:1]) == 0


def test_who_cannot_ask_does_not_say_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "ask", lambda _: None)
    assert audit.main() == 0
    assert "not done" in capsys.readouterr().out
