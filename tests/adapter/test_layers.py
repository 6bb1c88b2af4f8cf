"""The harness, the report and the comparison import no framework, though one is installed here."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["harness", "report"])
def test_no_framework_is_imported(package: str) -> None:
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
