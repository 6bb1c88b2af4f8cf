"""Render k8s/base into the files of k8s/, for ``kubectl apply -f k8s/`` without kustomize. Needs kubectl."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

K8S = Path(__file__).resolve().parents[1] / "k8s"
HEADER = "# Rendered from k8s/base by `make manifests`: edit there.\n"
# In the order in which kubectl applies them.
FILES = {
    "Namespace": "00-namespace.yaml",
    "NetworkPolicy": "10-network-policy.yaml",
    "PersistentVolumeClaim": "20-reports.yaml",
    "Job": "30-jobs.yaml",
}


def kustomize(folder: Path) -> list[str]:
    """The documents that ``kubectl kustomize`` makes of ``folder``, as text.

    Raises:
        OSError: kubectl is missing.
        subprocess.CalledProcessError: kubectl refuses the folder; ``stderr`` says why.
    """
    command = ["kubectl", "kustomize", str(folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [document.strip() + "\n" for document in re.split(r"^---$", rendered, flags=re.MULTILINE)]


def files(folder: Path = K8S / "base") -> dict[str, str]:
    """The content of each file, by its name.

    Raises:
        KeyError: a document's kind has no file in :data:`FILES`.
    """
    contents: dict[str, list[str]] = {}
    for document in kustomize(folder):
        (kind,) = re.findall(r"^kind: (\S+)$", document, flags=re.MULTILINE)
        contents.setdefault(FILES[kind], []).append(document)
    return {name: HEADER + "---\n".join(documents) for name, documents in sorted(contents.items())}


def main() -> int:
    try:
        rendered = files()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error: k8s/base cannot be rendered ({getattr(error, 'stderr', '') or error})", file=sys.stderr)
        return 2
    for path in K8S.glob("*.yaml"):
        path.unlink()
    for name, text in rendered.items():
        (K8S / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
