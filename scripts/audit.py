"""Ask for known vulnerabilities of every package that uv.lock names: ``make audit``, a part of ``make check``.

pip-audit reads the Python Packaging Advisory Database over the network. Where that cannot be reached nothing is
known, and that is what is said, rather than that all is well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from pydantic import BaseModel, ValidationError

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "uv.lock"
TIMEOUT_S = 15
LONGEST_S = 300


class Flaw(BaseModel):
    id: str
    fix_versions: list[str] = []


class Package(BaseModel):
    name: str
    version: str | None = None
    vulns: list[Flaw] | None = None
    """``None`` where pip-audit had to skip the package."""


class Answer(BaseModel):
    dependencies: list[Package]


class AuditFailed(Exception):
    """pip-audit could not be run, or what it says cannot be read."""


def main() -> int:
    pinned = pins(LOCK.read_text(encoding="utf-8"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "requirements.txt")
            path.write_text("\n".join(pinned) + "\n", encoding="utf-8")
            found = ask(path)
    except AuditFailed as error:
        print(f"error: audit: {error}", file=sys.stderr)
        return 2
    if found is None:
        print(f"audit: not done, the advisories cannot be reached ({len(pinned)} packages)")
        return 0
    return judge(found)


def pins(lock: str) -> list[str]:
    """``name==version`` of each package in the lock but this project; a local part of a version is the build's own."""
    packages = tomllib.loads(lock)["package"]
    found = {f"{one['name']}=={one['version'].partition('+')[0]}" for one in packages if "registry" in one["source"]}
    return sorted(found)


def ask(requirements: Path) -> list[Package] | None:
    """What is known of each package; ``None`` where nobody could be asked.

    Raises:
        AuditFailed: there is no pip-audit, or its answer is not the one this script knows.
    """
    pip_audit = shutil.which("pip-audit", path=str(Path(sys.executable).parent)) or shutil.which("pip-audit")
    if pip_audit is None:
        raise AuditFailed("pip-audit is not installed; `make audit` uses the one of .venv, which `make envs` makes")
    command = [pip_audit, "--requirement", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    options = ["--progress-spinner", "off", "--timeout", str(TIMEOUT_S)]
    try:
        done = subprocess.run([*command, *options], capture_output=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise AuditFailed(f"{pip_audit} cannot be run ({error.strerror or error}); make .venv anew") from error
    if not done.stdout.strip():
        # It prints no JSON at all where the advisories cannot be reached.
        return None
    try:
        found = Answer.model_validate_json(done.stdout).dependencies
    except ValidationError as error:
        start = ascii(done.stdout[:60].decode(errors="replace"))
        raise AuditFailed(f"pip-audit's answer {start} cannot be read; is its release in uv.lock a new one?") from error
    return found if any(one.vulns is not None for one in found) else None


def judge(found: list[Package]) -> int:
    """Print each vulnerability and what was not to be had; 1 where there is any vulnerability."""
    vulnerable = [(one, flaw) for one in found for flaw in one.vulns or []]
    for one, flaw in vulnerable:
        fixed = ", ".join(flaw.fix_versions) or "no release yet"
        print(f"audit: {one.name} {one.version}: {flaw.id}, fixed in {fixed}")
    skipped = [one.name for one in found if one.vulns is None]
    unknown = f"; nothing is known of {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(found) - len(skipped)} packages, {len(vulnerable)} known vulnerabilities{unknown}")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
