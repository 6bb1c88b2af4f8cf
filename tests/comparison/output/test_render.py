from __future__ import annotations

from itertools import pairwise

from jobs.comparison.output.markdown import render_markdown
from tests.comparison.comparisons import TF_SPEEDS, TORCH_SPEEDS, compare, parity_report, side, terminal
from tests.support.reports import make_report

HOSTILE = (
    "x|<script>alert(1)</script>\n# forged\n| a | b |\x1b[2J[bold]loud[/bold] {{ 7 - 7 }} @all https://evil.example"
)


def test_markdown_and_terminal_with_hostile_text_show_it_as_text() -> None:
    hostile = make_report(
        status="failed",
        gpu=True,
        changes={
            "status_reason": HOSTILE,
            "config.recipe": HOSTILE,
            "config.initializer": HOSTILE,
            "config.dataset.name": HOSTILE,
            "devices.0.name": HOSTILE,
            "environment.framework.version": HOSTILE,
            "results.steady_images_per_s": None,
            "null_reasons": {"results": HOSTILE},
            "warnings": [{"code": HOSTILE, "message": HOSTILE}],
        },
    )
    comparison = compare(hostile, make_report(run_id="other", gpu=True, changes={
        "config.recipe": HOSTILE, "config.initializer": HOSTILE, "config.dataset.name": HOSTILE,
        "devices.0.name": HOSTILE, "environment.framework.version": HOSTILE,
        "results.steady_images_per_s": None, "null_reasons": {"results": HOSTILE},
    }))  # fmt: skip
    markdown = render_markdown(comparison)
    assert "<script>" not in markdown
    assert "\x1b" not in markdown
    assert "\n# forged" not in markdown
    assert "{{ 7 - 7 }}" in markdown
    assert "https://evil" not in markdown
    (heading, *_) = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert heading.startswith(r"## x\|&lt;script&gt;")

    shown = terminal(comparison)
    assert "\x1b[2J" not in shown
    assert "[bold]" in shown


def test_markdown_table_rows_have_as_many_cells_as_headings() -> None:
    reports = [*side("tensorflow", TF_SPEEDS), make_report(status="failed", changes={"status_reason": "a | b \\| c"})]
    lines = render_markdown(compare(*reports)).splitlines()
    widths: list[int] = []
    for line in lines:
        if line.startswith("|"):
            widths.append(line.replace("\\\\", "").replace("\\|", "").count("|"))
        else:
            assert len(set(widths)) <= 1
            widths = []


def test_markdown_tables_and_headings_follow_an_empty_line() -> None:
    lines = render_markdown(compare(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS))).splitlines()
    for before, line in pairwise(lines):
        if line.startswith("|"):
            assert before == "" or before.startswith("|")
        if line.startswith("#"):
            assert before == ""


def test_metric_without_a_value_has_no_row_and_is_named() -> None:
    comparison = compare(*side("tensorflow", TF_SPEEDS), *side("torch", TORCH_SPEEDS))
    table = render_markdown(comparison).partition("## lenet")[2].partition("###")[0]
    assert "GPU" not in table
    assert "| GPU power in training | torch | 5 runs | no NVML on this machine |" in render_markdown(comparison)
    assert "not measured, see comparison.md: GPU utilization in training, GPU SM activity in training" in terminal(
        comparison
    )


def test_markdown_of_many_runs_is_cut_and_says_where_the_rest_is() -> None:
    reports = [make_report(seed=seed) for seed in range(1, 82)]
    markdown = render_markdown(compare(*reports))
    assert markdown.count("torch-lenet-matched-") == 50
    assert "\nThe first 50 of 81 rows; comparison.json has them all.\n" in markdown


def test_markdown_of_any_long_table_or_list_says_that_it_is_cut() -> None:
    reports = [
        make_report(
            epochs=60,
            changes={"warnings": [{"code": f"code-{number}", "message": "m"} for number in range(70)]},
        ),
        *(parity_report("torch", seed=seed, changes={"run_id": f"trace-{seed}"}) for seed in range(1, 53)),
    ]
    markdown = render_markdown(compare(*reports))
    by_epoch = markdown.partition("### Test accuracy by epoch")[2].partition("###")[0]
    assert "\nThe first 50 of 60 rows; comparison.json has them all.\n" in by_epoch
    assert "- and 20 more, all in comparison.json\n" in markdown.partition("### Warnings of the runs")[2]
    assert "- and 2 more, all in comparison.json\n" in markdown.partition("## Parity")[2]
