"""Imports point one way. The rooms are read from the tree, so that a new folder cannot pass unchecked."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JOBS = ROOT / "jobs"
SPLIT = {"comparison"}
"""Rooms whose parts are held to the same rule."""
ADAPTERS = sorted(path.name for path in JOBS.glob("mnist_*"))
FRAMEWORKS = {"tensorflow", "keras", "torch", "torchvision"}
FRAMEWORKS_OF = {"mnist_tf": {"tensorflow", "keras"}, "mnist_torch": {"torch", "torchvision"}}
READERS_IMPORT = {"comparison", "report", "choices", "io", "errors", "exit_codes", "__version__"}
"""All that the comparison may import: it meets the jobs only at the report."""


def room_of(module: str) -> str | None:
    """``jobs.io.stdio`` is in ``io``, ``jobs.comparison.input.load`` in ``comparison.input``."""
    top, *parts = module.split(".")
    if top != "jobs" or not parts:
        return None
    return ".".join(parts[:2]) if parts[0] in SPLIT and len(parts) > 1 else parts[0]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = sorted(JOBS.rglob("*.py"))
IMPORTS = {path: imports_of(path) for path in FILES}


def arrows() -> dict[str, set[str]]:
    """By room: the rooms that it imports from, type checks included."""
    found: dict[str, set[str]] = {}
    for path, names in IMPORTS.items():
        room = room_of(module_of(path))
        if room is not None:
            others = {other for other in map(room_of, names) if other not in {None, room, room.partition(".")[0]}}
            found.setdefault(room, set()).update(other for other in others if other is not None)
    return found


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """The rooms of a circle in ``graph``, ``None`` where there is none."""
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str] | None:
        if room in way:
            return [*way[way.index(room) :], room]
        if room in done:
            return None
        for other in sorted(graph.get(room, ())):
            found = walk(other, [*way, room])
            if found is not None:
                return found
        done.add(room)
        return None

    return next((found for room in sorted(graph) if (found := walk(room, [])) is not None), None)


def test_rooms_import_in_one_direction() -> None:
    graph = arrows()
    assert {"io", "training", "telemetry", "comparison.input", *ADAPTERS} <= graph.keys()
    assert circle(graph) is None


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert circle(graph) == ["b", "c", "b"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(JOBS).as_posix())
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = path.relative_to(JOBS).parts[0]
    for name in IMPORTS[path]:
        top, _, rest = name.partition(".")
        if top in FRAMEWORKS:
            assert top in FRAMEWORKS_OF.get(room, set()), f"{path} imports {name}"
        if top == "jobs":
            other = rest.partition(".")[0]
            assert other not in ADAPTERS or other == room, f"{path} imports {name}"
            if room in {"comparison", "report"}:
                assert other in READERS_IMPORT, f"{path} imports {name}"


def test_every_adapter_has_its_frameworks_listed() -> None:
    assert set(ADAPTERS) == set(FRAMEWORKS_OF)


def test_the_sampler_process_imports_nothing_large() -> None:
    """It starts in a fraction of a second and stays small beside the job."""
    program = "import sys, jobs.telemetry.sampler.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "rich", "typer", "scipy"} & set(done.stdout.split())


def test_the_two_adapters_mirror_each_other() -> None:
    tf = {path.name for path in (JOBS / "mnist_tf").glob("*.py")}
    torch = {path.name for path in (JOBS / "mnist_torch").glob("*.py")}
    # A CUDA graph is captured by hand in torch, whose layers are slow on a CPU; only TensorFlow logs while it starts.
    assert tf - {"native_logs.py"} == torch - {"cpu_layers.py", "cuda_graph.py"}
    for name in ("framework.py", "model.py", "numerics.py", "optimizer.py", "peak_flops.py", "state.py"):
        public = [{f for f in _functions(f"{room}/{name}") if not f.startswith("_")} for room in FRAMEWORKS_OF]
        shared = public[0] & public[1]
        # What only torch needs: autocast, and the averages of its own optimizers, which no property tells.
        assert shared
        assert public[0] ^ public[1] <= {"autocast", "gradient_averages"}, name


def _functions(path: str) -> set[str]:
    tree = ast.parse((JOBS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
