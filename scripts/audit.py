"""Ask for known vulnerabilities of every package that uv.lock names: ``make audit``, a part of ``make check``.

pip-audit reads the Python Packaging Advisory Database over the network. Where that cannot be reached nothing is
known, and that is what is said, rather than that all is well.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "uv.lock"
TIMEOUT_S = 15
LONGEST_S = 300


def main() -> int:
    pinned = pins(LOCK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("\n".join(pinned) + "\n", encoding="utf-8")
        answer = ask(path)
    if answer is None:
        print(f"audit: not done, the advisories cannot be reached ({len(pinned)} packages)")
        return 0
    return judge(answer)


def pins(lock: str) -> list[str]:
    """``name==version`` of each package in the lock but this project; a local part of a version is the build's own."""
    packages = tomllib.loads(lock)["package"]
    found = {f"{one['name']}=={one['version'].partition('+')[0]}" for one in packages if "registry" in one["source"]}
    return sorted(found)


def ask(requirements: Path) -> list[dict[str, Any]] | None:
    """What is known of each package; ``None`` where nobody could be asked."""
    pip_audit = shutil.which("pip-audit", path=str(Path(sys.executable).parent)) or "pip-audit"
    command = [pip_audit, "--requirement", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    options = ["--progress-spinner", "off", "--timeout", str(TIMEOUT_S)]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=LONGEST_S)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None
    return found if any("vulns" in one for one in found) else None


def judge(found: list[dict[str, Any]]) -> int:
    """Print each vulnerability and what was not to be had; 1 where there is any vulnerability."""
    vulnerable = [(one, flaw) for one in found for flaw in one.get("vulns", [])]
    for one, flaw in vulnerable:
        fixed = ", ".join(flaw.get("fix_versions") or []) or "no release yet"
        print(f"audit: {one['name']} {one['version']}: {flaw['id']}, fixed in {fixed}")
    skipped = [one["name"] for one in found if "vulns" not in one]
    unknown = f"; nothing is known of {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(found) - len(skipped)} packages, {len(vulnerable)} known vulnerabilities{unknown}")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
