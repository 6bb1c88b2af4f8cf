"""Draws parity over recipes, precisions, seeds, datasets and processor settings, and over planted faults.

``python -m tests.parity_survey`` (``make parity-survey``) traces both frameworks in their own environments, judges
every pair as a merge does, and writes what it found. Finished traces stay in ``--work`` and are not repeated: remove
that folder after a change of the code. No pair may differ, and every fault must be found: otherwise it ends with
code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.comparison.analysis.parity import compare
from jobs.comparison.analysis.rounding import ENVELOPES, lower_quartile, severity
from jobs.recipes import RECIPES
from jobs.report.schema import Parity
from scripts.measurement import add_output_option, circumstances, write_results
from tests.support.faults import FAULTS
from tests.support.traces import packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.choices import FrameworkName
    from jobs.comparison.analysis.parity import Trace
    from jobs.comparison.schema_parity import ParityPair, RoundedQuantity

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final[dict[FrameworkName, Path]] = {
    "tensorflow": ROOT / ".venv-tf/bin/python",
    "torch": ROOT / ".venv-torch/bin/python",
}
PRECISIONS: Final = ("fp32", "bf16")
DATASETS: Final = ("mnist", "synthetic")
RECIPES_TRACED: Final = ("lenet", "basic-cnn")
STEPS: Final = 8
"""Steps of a trace, each with a comparison of the coarser precision: as few as a verdict takes."""
PROOF_STEPS: Final = 200
"""Steps of the float64 traces that are taken once for each recipe, as docs/fairness.md tells its readers to."""
VARIANTS: Final[dict[tuple[FrameworkName, str], int]] = {
    ("tensorflow", "lenet"): 3,
    ("torch", "lenet"): 3,
    ("tensorflow", "basic-cnn"): 1,
    ("torch", "basic-cnn"): 1,
}
"""Processor settings in which each recipe, precision and seed is traced; every two of them make a pair."""
FAULT_STEPS: Final = 16
LABEL_FAULT_STEPS: Final = 48
"""One label in 1,000 is wrong, so that it takes some steps to meet one."""
BATCH_SIZE: Final = 64
SAMPLE_BATCH_SIZE: Final = {"lenet": 64, "basic-cnn": 16}
"""A smaller batch of the larger recipe, so that the sample takes less than an hour."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Which instructions a framework may use, and how many threads."""

    framework: FrameworkName
    variables: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.variables) or "as the machine is"


def processors(framework: FrameworkName, precision: str) -> list[Processor]:
    """Every setting in which ``framework`` can train in ``precision``."""
    threads = {"tensorflow": ("TF_NUM_INTRAOP_THREADS",), "torch": ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}[framework]
    own = {
        "tensorflow": ("TF_ENABLE_ONEDNN_OPTS", ("0", "1")),
        "torch": ("ATEN_CPU_CAPABILITY", ("default", "avx2", "avx512")),
    }[framework]
    return [
        Processor(
            framework=framework,
            variables=(
                (own[0], capability),
                ("ONEDNN_MAX_CPU_ISA", isa),
                *((name, count) for name in threads),
            ),
        )
        for capability, isa, count in product(own[1], ("SSE41", "AVX2", "AVX512_CORE"), ("1", "2"))
        # TensorFlow asks the processor, not oneDNN, whether oneDNN has bfloat16, and fails where it is held back.
        if not (precision == "bf16" and capability == "1" and isa != "AVX512_CORE")
    ]


def survey_tasks(seeds: int) -> dict[Processor, list[dict[str, Any]]]:
    """What to trace where: each setting in processor settings drawn from a seed."""
    draw = random.Random(1)  # noqa: S311 - a sample, no secret
    tasks: dict[Processor, list[dict[str, Any]]] = defaultdict(list)
    for recipe, precision, seed in product(RECIPES_TRACED, PRECISIONS, range(1, seeds + 1)):
        # Odd seeds on one dataset and even ones on the other, the other way round in the other precision.
        dataset = DATASETS[(seed + PRECISIONS.index(precision)) % len(DATASETS)]
        for framework in PYTHON:
            for processor in draw.sample(processors(framework, precision), VARIANTS[framework, recipe]):
                task = _task(recipe, precision, seed, dataset, STEPS, None)
                tasks[processor].append({**task, "batch_size": SAMPLE_BATCH_SIZE[recipe]})
    return tasks


def fault_tasks() -> dict[Processor, list[dict[str, Any]]]:
    tasks: dict[Processor, list[dict[str, Any]]] = defaultdict(list)
    for framework in PYTHON:
        processor = Processor(framework=framework, variables=())
        for name, recipe in RECIPES.items():
            tasks[processor] += [
                _task(name, "fp32", 1, "synthetic", steps, None) for steps in (FAULT_STEPS, LABEL_FAULT_STEPS)
            ]
            tasks[processor] += [
                _task(name, "fp32", 1, "synthetic", _fault_steps(fault.name), fault.name)
                for fault in FAULTS
                if fault.applies_to(recipe)
            ]
    return tasks


def proof_tasks() -> dict[Processor, list[dict[str, Any]]]:
    return {
        Processor(framework=framework, variables=()): [
            _task(recipe, "fp64", 1, "mnist", PROOF_STEPS, None) for recipe in RECIPES_TRACED
        ]
        for framework in PYTHON
    }


def _fault_steps(fault: str) -> int:
    return LABEL_FAULT_STEPS if fault.startswith("label") else FAULT_STEPS


def _task(recipe: str, precision: str, seed: int, dataset: str, steps: int, fault: str | None) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "precision": precision,
        "seed": seed,
        "batch_size": BATCH_SIZE,
        "dataset": dataset,
        "steps": steps,
        "fault": fault,
    }


def trace_all(tasks: dict[Processor, list[dict[str, Any]]], work: Path) -> dict[Processor, list[dict[str, Any]]]:
    """Trace every task, one process a framework at a time; what ``work`` already holds is not traced again."""
    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(PYTHON)) as pool:
        lanes = [
            pool.submit(_trace_lane, [one for one in tasks.items() if one[0].framework == framework], work)
            for framework in PYTHON
        ]
        return {processor: answers for lane in lanes for processor, answers in lane.result()}


def _trace_lane(
    lane: list[tuple[Processor, list[dict[str, Any]]]], work: Path
) -> list[tuple[Processor, list[dict[str, Any]]]]:
    answered = []
    for number, (processor, tasks) in enumerate(lane, start=1):
        name = f"{processor.framework}-" + "-".join(value for _, value in processor.variables)
        path = work / f"{name}.jsonl"
        done = {json.dumps(_key(answer)) for answer in _read(path)}
        missing = [task for task in tasks if json.dumps(_key(task)) not in done]
        print(f"{processor.framework} {number}/{len(lane)}: {processor.text}, {len(missing)} traces", flush=True)
        if missing:
            lines = "".join(f"{json.dumps(task)}\n" for task in missing)
            environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **dict(processor.variables)}
            with path.open("a", encoding="utf-8") as file:
                command: list[str | Path] = [PYTHON[processor.framework], "-m", "tests.parity_survey.worker"]
                subprocess.run(command, input=lines, stdout=file, text=True, check=True, cwd=ROOT, env=environment)
        wanted = {json.dumps(_key(task)) for task in tasks}
        answered.append((processor, [answer for answer in _read(path) if json.dumps(_key(answer)) in wanted]))
    return answered


def _key(task: dict[str, Any]) -> list[Any]:
    return [task[name] for name in ("recipe", "precision", "seed", "dataset", "steps", "fault")]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)


def _packed(answer: dict[str, Any]) -> Trace:
    setting = {name: answer[name] for name in ("recipe", "precision", "seed", "batch_size", "dataset_sha256")}
    return packed(Parity.model_validate(answer["parity"]), framework=answer["framework"], **setting)


def compare_all(answers: dict[Processor, list[dict[str, Any]]]) -> list[tuple[dict[str, Any], ParityPair]]:
    """Every TensorFlow trace with every torch trace of the same setting; the setting beside each pair."""
    traces: dict[str, dict[str, list[tuple[Processor, dict[str, Any], Trace]]]] = defaultdict(lambda: defaultdict(list))
    for processor, answered in answers.items():
        for answer in answered:
            traces[json.dumps(_key(answer))][processor.framework].append((processor, answer, _packed(answer)))
    pairs = []
    for sides in traces.values():
        for (one, answer, first), (other, _, second) in product(sides["tensorflow"], sides["torch"]):
            setting = {name: answer[name] for name in ("recipe", "precision", "seed", "dataset")}
            pairs.append(({**setting, "tensorflow": one.text, "torch": other.text}, compare(first, second)))
    return pairs


def summarise_pairs(pairs: list[tuple[dict[str, Any], ParityPair]]) -> list[dict[str, Any]]:
    """By recipe and precision: how many pairs agree, and how near the furthest came to a bound."""
    rows = []
    for recipe, precision in product(RECIPES_TRACED, PRECISIONS):
        mine = [pair for setting, pair in pairs if (setting["recipe"], setting["precision"]) == (recipe, precision)]
        nearest = max((check for pair in mine for check in pair.rounding), key=severity)
        rows.append(
            {
                "recipe": recipe,
                "precision": precision,
                "pairs": len(mine),
                "agree": sum(pair.outcome == "agree" for pair in mine),
                "largest_float64_difference": max(pair.largest_relative_difference or 0.0 for pair in mine),
                "nearest_bound": " ".join(filter(None, (nearest.framework, nearest.quantity, nearest.weight))),
                "share_of_nearest_bound": severity(nearest),
            }
        )
    return rows


def judge_proofs(answers: dict[Processor, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The float64 pairs, quantity by quantity."""
    return [
        {
            "recipe": pair.recipe,
            "outcome": pair.outcome,
            "steps": pair.steps,
            **{quantity.name: quantity.largest_relative_difference for quantity in pair.quantities},
        }
        for _, pair in compare_all(answers)
    ]


def judge_faults(answers: dict[Processor, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Every faulty trace with the other framework's faithful one."""
    faithful: dict[tuple[str, str, int], Trace] = {}
    for processor, answered in answers.items():
        for answer in answered:
            if answer["fault"] is None:
                faithful[processor.framework, answer["recipe"], answer["steps"]] = _packed(answer)
    found = []
    for processor, answered in answers.items():
        other = next(framework for framework in PYTHON if framework != processor.framework)
        for answer in answered:
            if answer["fault"] is not None:
                pair = compare(_packed(answer), faithful[other, answer["recipe"], answer["steps"]])
                found.append(
                    {
                        "fault": answer["fault"],
                        "framework": processor.framework,
                        "recipe": answer["recipe"],
                        "outcome": pair.outcome,
                        "text": pair.text,
                    }
                )
    return found


def rounding_table(answers: dict[Processor, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """By framework, recipe, precision and quantity: the worst trace's usual and largest error, of all its weights."""
    worst: dict[tuple[str, str, str, RoundedQuantity], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for processor, answered in answers.items():
        for answer in answered:
            states = answer["parity"]["rounding"]
            errors: dict[tuple[RoundedQuantity, str], list[float]] = {
                ("loss", ""): [state["loss"] for state in states],
                ("logits", ""): [state["logits"] for state in states],
                **{
                    ("gradient", name): [state["gradients"][name] for state in states]
                    for name in states[0]["gradients"]
                },
                **{("update", name): [state["updates"][name] for state in states] for name in states[0]["updates"]},
            }
            for (quantity, _), values in errors.items():
                key = (processor.framework, answer["recipe"], answer["precision"], quantity)
                usual, largest = worst[key]
                worst[key] = max(usual, lower_quartile(values)), max(largest, *values)
    return [
        {
            "framework": framework,
            "recipe": recipe,
            "precision": precision,
            "quantity": quantity,
            "usual_error": usual,
            "usual_bound": ENVELOPES[precision][quantity].lower_quartile,
            "largest_error": largest,
            "largest_bound": ENVELOPES[precision][quantity].maximum,
        }
        for (framework, recipe, precision, quantity), (usual, largest) in sorted(worst.items())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_option(parser, "parity")
    parser.add_argument("--work", type=Path, default=ROOT / "parity-survey", help="where traces are kept")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each setting")
    arguments = parser.parse_args()
    measured = circumstances()
    proofs = judge_proofs(trace_all(proof_tasks(), arguments.work / "proofs"))
    faults = judge_faults(trace_all(fault_tasks(), arguments.work / "faults"))
    sampled = trace_all(survey_tasks(arguments.seeds), arguments.work / "sample")
    pairs, rounding = compare_all(sampled), rounding_table(sampled)
    content = {
        "batch_size": BATCH_SIZE,
        "sample_batch_size": SAMPLE_BATCH_SIZE,
        "steps": STEPS,
        "seeds": arguments.seeds,
        "proofs": proofs,
        "pairs": summarise_pairs(pairs),
        "rounding": rounding,
        "faults": faults,
    }
    write_results(arguments.output, content, measured=measured)
    wrong = [{**setting, "text": pair.text} for setting, pair in pairs if pair.outcome != "agree"]
    missed = [fault for fault in faults if fault["outcome"] in {"agree", "not_judged"}]
    for row in (*wrong, *missed):
        print(json.dumps(row))
    print(f"{len(pairs)} pairs, {len(wrong)} do not agree; {len(faults)} faults planted, {len(missed)} not found")
    return 1 if wrong or missed or any(proof["outcome"] != "agree" for proof in proofs) else 0


if __name__ == "__main__":
    sys.exit(main())
