"""Imports point one way. The rooms are read from the tree, so a new folder is always checked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "jobs"
SPLIT_ROOMS = {"comparison"}
"""Rooms whose subfolders are checked as rooms of their own."""
ADAPTERS = sorted(path.name for path in JOBS.glob("mnist_*"))
FRAMEWORKS_OF = {"mnist_tf": {"tensorflow", "keras"}, "mnist_torch": {"torch", "torchvision"}}
FRAMEWORKS = set().union(*FRAMEWORKS_OF.values())
ALLOWED_IN_COMPARISON = {"comparison", "report", "choices", "io", "errors", "exit_codes", "__version__"}
"""All that the comparison and the report may import: they share only the report with the jobs."""


def room_of(module: str) -> str | None:
    """``jobs.io.stdio`` is in ``io``, ``jobs.comparison.input.load`` in ``comparison.input``."""
    top, *parts = module.split(".")
    if top != "jobs" or not parts:
        return None
    return ".".join(parts[:2]) if parts[0] in SPLIT_ROOMS and len(parts) > 1 else parts[0]


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = sorted(JOBS.rglob("*.py"))
IMPORTS = {path: imports_of(path) for path in FILES}


def import_graph() -> dict[str, set[str]]:
    """By room: the rooms that it imports from, type checks included."""
    graph: dict[str, set[str]] = {}
    for path, names in IMPORTS.items():
        room = room_of(module_of(path))
        if room is not None:
            others = {other for other in map(room_of, names) if other not in {None, room, room.partition(".")[0]}}
            graph.setdefault(room, set()).update(other for other in others if other is not None)
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """The rooms of a cycle in ``graph``; ``None`` if there is none."""
    visited: set[str] = set()

    def visit(room: str, path: list[str]) -> list[str] | None:
        if room in path:
            return [*path[path.index(room) :], room]
        if room in visited:
            return None
        for other in sorted(graph.get(room, ())):
            cycle = visit(other, [*path, room])
            if cycle is not None:
                return cycle
        visited.add(room)
        return None

    return next((cycle for room in sorted(graph) if (cycle := visit(room, [])) is not None), None)


def test_rooms_import_in_one_direction() -> None:
    graph = import_graph()
    assert {"io", "training", "telemetry", "comparison.input", *ADAPTERS} <= graph.keys()
    assert find_cycle(graph) is None


def test_modules_have_no_import_cycle() -> None:
    modules = {module_of(path).removesuffix(".__init__") for path in FILES}
    graph = {
        module_of(path).removesuffix(".__init__"): {
            name if name in modules else name.rpartition(".")[0] for name in names if name.startswith("jobs.")
        }
        for path, names in IMPORTS.items()
    }
    assert find_cycle(graph) is None


def test_find_cycle_with_a_cycle_returns_its_rooms() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert find_cycle(graph) == ["b", "c", "b"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(JOBS).as_posix())
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    room = path.relative_to(JOBS).parts[0]
    for name in IMPORTS[path]:
        top, _, rest = name.partition(".")
        if top in FRAMEWORKS:
            assert top in FRAMEWORKS_OF.get(room, set()), f"{path} imports {name}"
        if top == "jobs":
            other = rest.partition(".")[0]
            assert other not in ADAPTERS or other == room, f"{path} imports {name}"
            if room in {"comparison", "report"}:
                assert other in ALLOWED_IN_COMPARISON, f"{path} imports {name}"


def test_every_adapter_folder_lists_its_frameworks() -> None:
    assert set(ADAPTERS) == set(FRAMEWORKS_OF)


def test_sampler_process_imports_no_large_package() -> None:
    """It must start in a fraction of a second and stay small beside the job."""
    program = "import sys, jobs.telemetry.sampler.program; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "rich", "typer", "scipy"} & set(done.stdout.split())


def test_architecture_page_describes_every_room_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| package |")[2].partition("\n\n")[0]
    described = {
        name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)
    }
    rooms = {path.relative_to(JOBS).as_posix() for folder in ["", *SPLIT_ROOMS] for path in (JOBS / folder).iterdir()}
    folders = {room for room in rooms if list((JOBS / room).glob("*.py"))} - SPLIT_ROOMS
    modules = {path.name for path in JOBS.glob("*.py")} - {"__init__.py"}
    assert {name.removesuffix("/") for name in described} - {"telemetry/sampler"} == folders | modules


def test_adapters_have_the_same_files_and_functions() -> None:
    tf = {path.name for path in (JOBS / "mnist_tf").glob("*.py")}
    torch = {path.name for path in (JOBS / "mnist_torch").glob("*.py")}
    # torch captures a CUDA graph by hand, and its own layers are slow on a CPU. TensorFlow logs while it starts.
    assert tf - {"native_logs.py"} == torch - {"cpu_layers.py", "cuda_graph.py"}
    for name in ("framework.py", "model.py", "numerics.py", "optimizer.py", "peak_flops.py", "state.py"):
        public = [{f for f in _functions(f"{room}/{name}") if not f.startswith("_")} for room in FRAMEWORKS_OF]
        shared = public[0] & public[1]
        # Only torch needs these: autocast, and the gradient averages that its own optimizers keep.
        assert shared
        assert public[0] ^ public[1] <= {"autocast", "gradient_averages"}, name


def _functions(path: str) -> set[str]:
    tree = ast.parse((JOBS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
