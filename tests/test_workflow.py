"""CI, hooks and releases run the make targets that people run, with actions pinned by commit."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import __version__
from scripts import render_manifests

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILES = (ROOT / "Makefile").read_text("utf-8") + (ROOT / "docker" / "images.mk").read_text("utf-8")

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def _workflow(path: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return workflow


def _steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in _workflow(path)["jobs"].values() for step in job["steps"]]


def _runs(name: str) -> list[str]:
    return [step["run"] for step in _steps(ROOT / ".github" / "workflows" / name) if "run" in step]


def _is_target(name: str) -> bool:
    return re.search(rf"(^|: ){name}( [^=]*)?:", MAKEFILES, re.MULTILINE) is not None


@each_workflow
def test_make_targets_of_the_workflow_exist(path: Path) -> None:
    for run in _runs(path.name):
        if run.startswith("make "):
            assert _is_target(run.replace("${{ matrix.image }}", "%").split()[1]), run


def test_ci_runs_the_make_targets_of_people() -> None:
    expected = {"check", "test", "coverage", "test-mnist", "test-images"}
    assert expected <= {run.removeprefix("make ") for run in _runs("ci.yml")}


def test_nightly_runs_every_test_that_make_test_samples() -> None:
    (job,) = _workflow(ROOT / ".github/workflows/nightly.yml")["jobs"].values()
    commands = "".join(_make(target, "--dry-run").stdout for target in job["strategy"]["matrix"]["target"])
    named = [ROOT / path for path in re.findall(r"tests/[\w./]+", commands)]
    sampled = re.compile(r"^from tests\.support\.programs import [^#]*?\b(TORTURE|once|rounds)\b", re.MULTILINE)
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if sampled.search(path.read_text("utf-8"))]
    assert len(files) > 5
    assert [path for path in files if not {path, *path.parents} & set(named)] == []


def test_ci_runs_what_the_local_script_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    ours = [line.strip() for line in lines if line.strip().startswith("make ")]
    assert ours == ["make check", "make test", "make test-mnist"]
    assert set(ours) <= set(_runs("ci.yml"))


def test_ci_tests_every_supported_python() -> None:
    matrix = _workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    assert matrix == [
        line.removeprefix(prefix) for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)
    ]


def test_hooks_call_make_targets() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert {hook["entry"] for hook in hooks} == {"make format", "make figures", "make check", "make test-fast"}
    assert all(_is_target(hook["entry"].removeprefix("make ")) for hook in hooks)


def test_editorconfig_line_length_is_that_of_ruff() -> None:
    (length,) = re.findall(r"^max_line_length = (\d+)$", (ROOT / ".editorconfig").read_text("utf-8"), re.MULTILINE)
    assert int(length) == PROJECT["tool"]["ruff"]["line-length"]


def test_make_test_runs_without_mnist() -> None:
    planned = _make("test", "--dry-run", MNIST_DATA_DIR=str(ROOT))
    commands = [line for line in planned.stdout.splitlines() if "pytest" in line]
    assert len(commands) == 3
    assert all(line.startswith("env -u MNIST_DATA_DIR .venv") for line in commands)
    assert "-m 'not docker and not mnist'" in commands[0]


def test_make_test_fast_names_files_that_exist() -> None:
    planned = _make("test-fast", "--dry-run")
    paths = set(re.findall(r"tests/[\w./]+", planned.stdout))
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("value", ["", "/nonexistent", str(ROOT / "Makefile")])
def test_make_test_mnist_without_a_folder_is_an_error(value: str) -> None:
    done = _make("test-mnist", MNIST_DATA_DIR=value)
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first == f"MNIST_DATA_DIR='{value}' names no folder: set it to the one that holds MNIST's four files"
    assert all(line.startswith("make") for line in rest)
    assert "pytest" not in done.stdout


def _make(target: str, *options: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    # An outer make would pass its own options on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", target, *options],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@each_workflow
def test_actions_are_pinned_by_commit_and_name_their_version(path: Path) -> None:
    used = [step["uses"] for step in _steps(path) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", path.read_text("utf-8"), re.MULTILINE), action


@each_workflow
def test_workflow_has_read_permission_and_a_time_limit(path: Path) -> None:
    workflow = _workflow(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_release_attests_every_image_before_it_is_announced() -> None:
    jobs = _workflow(ROOT / ".github/workflows/release.yml")["jobs"]
    (images,) = re.findall(r"^IMAGES := (.*)$", MAKEFILES, re.MULTILINE)
    published = {*images.split(), "mnist-merge"}
    assert set(jobs["images"]["outputs"]) == set(jobs["attest"]["strategy"]["matrix"]["image"]) == published
    actions = {step["uses"].partition("@")[0] for step in jobs["attest"]["steps"] if "uses" in step}
    assert {"actions/attest-build-provenance", "actions/attest-sbom"} <= actions
    order = ["test", "test-images", "base", "publish", "images", "attest", "release"]
    assert [jobs[name].get("needs") for name in order] == [None, *order[:-1]]
    assert {"make check", "make test"} <= {step.get("run") for step in jobs["test"]["steps"]}


def test_release_publishes_each_image_for_the_processors_that_it_is_built_for() -> None:
    pairs = _workflow(ROOT / ".github/workflows/release.yml")["jobs"]["publish"]["strategy"]["matrix"]["include"]
    x86, arm = "ubuntu-24.04", "ubuntu-24.04-arm"
    expected = [
        ("mnist-tf", x86),
        *((image, runner) for image in ("mnist-torch", "mnist-merge") for runner in (x86, arm)),
    ]
    assert [(pair["image"], pair["runner"]) for pair in pairs] == expected
    assert re.search(r"^AMD64_ONLY := mnist-tf$", MAKEFILES, re.MULTILINE)


def test_ci_reproduces_what_a_release_publishes_and_keeps_the_digests() -> None:
    def pairs(workflow: str, job: str) -> Any:
        return _workflow(ROOT / ".github/workflows" / workflow)["jobs"][job]["strategy"]["matrix"]["include"]

    assert pairs("ci.yml", "reproduce") == pairs("release.yml", "publish")
    job = _workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["reproduce"]
    assert job["runs-on"] == "${{ matrix.runner }}"
    build, keep = (step for step in job["steps"] if "reproduce" in step.get("run", ""))
    assert build["run"] == "make reproduce-${{ matrix.image }}"
    assert keep == {"if": "${{ !cancelled() }}", "run": 'cat build/reproduce/*.txt >> "$GITHUB_STEP_SUMMARY"'}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the project as the release notes need."""
    for part in ("Makefile", "docker/images.mk", "jobs/__init__.py", "CHANGELOG.md"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def test_release_notes_are_the_changelog_section(checkout: Path) -> None:
    changelog = (
        f"# Changelog\n\n## 99.0.0 (unreleased)\n\nnew\n\n## {__version__} (2030-01-02)\n\n- this\n\n## 0.0.1\n\nold\n"
    )
    (checkout / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    done = _make("release-notes", folder=checkout, TAG=f"v{__version__}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "build/release/notes.md").read_text("utf-8").strip() == "- this"


def test_release_notes_of_an_unreleased_section_are_an_error(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(f"## {__version__} (unreleased)\n\n- this\n", encoding="utf-8")
    done = _make("release-notes", folder=checkout)
    assert done.returncode == 2
    assert f"CHANGELOG.md has no section '## {__version__} (DATE)'" in done.stderr


def test_release_notes_with_another_tag_are_an_error(checkout: Path) -> None:
    done = _make("release-notes", folder=checkout, TAG="v9.9.9")
    assert done.returncode == 2
    assert f"TAG=v9.9.9 is not v{__version__}" in done.stderr


def test_push_images_without_a_registry_is_an_error() -> None:
    for registry in ("", "-x", "a b"):
        done = _make("push-images", REGISTRY=registry)
        assert done.returncode == 2
        assert f"REGISTRY={registry} is no registry" in done.stderr


def test_version_has_one_source() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "jobs/__init__.py"
    assert importlib.metadata.version("mnist-jobs") == __version__
    for path in (ROOT / "k8s").rglob("kustomization.yaml"):
        versions = re.findall(r"(?:version|newTag): (\d\S*)$", path.read_text("utf-8"), re.MULTILINE)
        assert set(versions) <= {__version__}, f"{path}: run make manifests"


def test_make_manifests_writes_the_version_and_keeps_other_tags(tmp_path: Path) -> None:
    path = tmp_path / "base" / "kustomization.yaml"
    path.parent.mkdir()
    label = "app.kubernetes.io/version"
    path.write_text(f"a:\n  {label}: 9.9.9\nb:\n  newTag: 9.9.9\nc:\n  newTag: mine-9.9.9\n", encoding="utf-8")
    render_manifests.write_version(tmp_path)
    expected = f"a:\n  {label}: {__version__}\nb:\n  newTag: {__version__}\nc:\n  newTag: mine-9.9.9\n"
    assert path.read_text("utf-8") == expected
