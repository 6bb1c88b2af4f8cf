"""Only the adapters import a framework, though one is installed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = sorted(
    path.parent.name
    for path in (Path(__file__).parents[2] / "jobs").glob("*/__init__.py")
    if not path.parent.name.startswith("mnist_") and path.parent.name != "comparison"  # its libraries are not installed
)


@pytest.mark.parametrize("package", ROOMS)
def test_imports_framework_free_packages_load_no_framework(package: str) -> None:
    program = (
        "import importlib, pkgutil, sys\n"
        f"import jobs.{package} as package\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n"
        "loaded = {'torch', 'torchvision', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
