from __future__ import annotations

from pathlib import Path

import pytest

from scripts import audit

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


def test_pins_has_every_package_of_the_lock() -> None:
    assert audit.pins(LOCK) == ["torch==2.15.0"]
    names = {pin.partition("==")[0] for pin in audit.pins((ROOT / "uv.lock").read_text(encoding="utf-8"))}
    assert {"torch", "tensorflow", "typer", "nvidia-ml-py", "pytest"} <= names


def _packages(*found: dict[str, object]) -> list[audit.Package]:
    return [audit.Package.model_validate(one) for one in found]


@pytest.fixture
def pip_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program in pip-audit's place may be put; there is no other."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", "/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin/pip-audit"


def _answers(pip_audit: Path, answer: str, *, log: str = "", code: int = 0) -> None:
    pip_audit.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\nprintf '%s\\n' '{log}' >&2\nexit {code}\n")
    pip_audit.chmod(0o755)


@pytest.mark.parametrize("answer", ["[]", "{}", "null", '{"dependencies": 1}', '{"dependencies": [1]}', "{", "oh no"])
def test_main_unreadable_answer_is_one_line_and_fails(
    pip_audit: Path, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    _answers(pip_audit, answer)
    assert audit.main() == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: audit: pip-audit's answer ")
    assert error.count("\n") == 1


def test_main_without_pip_audit_says_how_to_get_it(pip_audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not pip_audit.exists()
    assert audit.main() == 2
    assert "pip-audit is not installed; `make audit`" in capsys.readouterr().err


def test_main_pip_audit_that_cannot_be_run_is_named(pip_audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pip_audit.write_text("#!/nowhere/python\n")
    pip_audit.chmod(0o755)
    assert audit.main() == 2
    assert f"error: audit: {pip_audit} cannot be run" in capsys.readouterr().err


def test_print_findings_vulnerability_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    found = _packages(
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]},
        {"name": "odd", "skip_reason": "not found"},
    )
    assert audit.print_findings(found) == 1
    out = capsys.readouterr().out
    assert "bad 2: PYSEC-1, fixed in 3" in out
    assert "2 packages, 1 known vulnerabilities; nothing is known of odd" in out
    assert audit.print_findings(found[:1]) == 0


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("pip-audit: error: unrecognized arguments: --progress-spinner off", 2),
        ("Traceback (most recent call last):\nModuleNotFoundError: No module named pip_api", 1),
        ("", 1),
        ("", 0),
    ],
)
def test_main_pip_audit_that_fails_is_no_audit_that_found_nothing(
    pip_audit: Path, capsys: pytest.CaptureFixture[str], log: str, code: int
) -> None:
    _answers(pip_audit, "", log=log, code=code)
    assert audit.main() == 2
    last = log.rpartition("\n")[2]
    assert capsys.readouterr() == (
        "", f"error: audit: pip-audit ended with code {code} and without an answer: {last!r}\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "log",
    [
        "ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`",
        "Traceback (most recent call last):\nrequests.exceptions.ProxyError: HTTPSConnectionPool: Max retries exceeded",
    ],
)
def test_main_without_a_network_says_that_the_audit_was_not_done(
    pip_audit: Path, capsys: pytest.CaptureFixture[str], log: str
) -> None:
    _answers(pip_audit, "", log=log, code=1)
    assert audit.main() == 0
    assert "not done" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ['{"dependencies": []}', '{"dependencies": [{"name": "a", "skip_reason": ""}]}'])
def test_main_without_advisories_says_that_the_audit_was_not_done(
    pip_audit: Path, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    _answers(pip_audit, answer)
    assert audit.main() == 0
    assert "not done" in capsys.readouterr().out
