"""List the known vulnerabilities of every package in uv.lock: ``make audit``, a part of ``make check``.

pip-audit reads the Python Packaging Advisory Database over the network. Where that cannot be reached, the audit says
that it was not done.
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
MAX_S = 300


class Vulnerability(BaseModel):
    id: str
    fix_versions: list[str] = []


class Package(BaseModel):
    name: str
    version: str | None = None
    vulns: list[Vulnerability] | None = None
    """``None`` where pip-audit had to skip the package."""


class AuditResult(BaseModel):
    dependencies: list[Package]


class AuditFailed(Exception):
    """pip-audit could not be run, or what it says cannot be read."""


def main() -> int:
    pinned = pins(LOCK.read_text(encoding="utf-8"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "requirements.txt")
            path.write_text("\n".join(pinned) + "\n", encoding="utf-8")
            packages = query_advisories(path)
    except AuditFailed as error:
        print(f"error: audit: {error}", file=sys.stderr)
        return 2
    if packages is None:
        print(f"audit: not done, the advisories cannot be reached ({len(pinned)} packages)")
        return 0
    return print_findings(packages)


def pins(lock: str) -> list[str]:
    """``name==version`` of each package in the lock but this project, without a version's local part, as ``+cu132``."""
    packages = [package for package in tomllib.loads(lock)["package"] if "registry" in package["source"]]
    return sorted({f"{package['name']}=={package['version'].partition('+')[0]}" for package in packages})


def query_advisories(requirements: Path) -> list[Package] | None:
    """The advisories of each package; ``None`` if they cannot be reached.

    Raises:
        AuditFailed: pip-audit is missing or cannot be run, or its output cannot be read.
    """
    pip_audit = shutil.which("pip-audit", path=str(Path(sys.executable).parent)) or shutil.which("pip-audit")
    if pip_audit is None:
        raise AuditFailed("pip-audit is not installed; `make audit` uses the one of .venv, which `make envs` makes")
    command = [pip_audit, "--requirement", str(requirements), "--no-deps", "--disable-pip", "--format", "json"]
    options = ["--progress-spinner", "off", "--timeout", str(TIMEOUT_S)]
    try:
        done = subprocess.run([*command, *options], capture_output=True, check=False, timeout=MAX_S)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise AuditFailed(f"{pip_audit} cannot be run ({error.strerror or error}); make .venv anew") from error
    if not done.stdout.strip():
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        # If the advisories cannot be reached, it ends with a line of its log or with its HTTP client's exception.
        if done.returncode == 1 and last.startswith(("ERROR:pip_audit", "requests.exceptions.")):
            return None
        raise AuditFailed(f"pip-audit ended with code {done.returncode} and without an answer: {last[:200]!a}")
    try:
        packages = AuditResult.model_validate_json(done.stdout).dependencies
    except ValidationError as error:
        start = ascii(done.stdout[:60].decode(errors="replace"))
        raise AuditFailed(f"pip-audit's answer {start} cannot be read; is its release in uv.lock a new one?") from error
    return packages if any(package.vulns is not None for package in packages) else None


def print_findings(packages: list[Package]) -> int:
    """Print each vulnerability and the packages that were skipped; 1 where there is any vulnerability."""
    findings = [(package, vulnerability) for package in packages for vulnerability in package.vulns or []]
    for package, vulnerability in findings:
        fixed = ", ".join(vulnerability.fix_versions) or "no release yet"
        print(f"audit: {package.name} {package.version}: {vulnerability.id}, fixed in {fixed}")
    skipped = [package.name for package in packages if package.vulns is None]
    unknown = f"; nothing is known of {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(packages) - len(skipped)} packages, {len(findings)} known vulnerabilities{unknown}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
