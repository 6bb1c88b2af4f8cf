"""Makes reports that nobody should write, and takes whatever comes through the whole merge."""

from __future__ import annotations

import csv
import io
import json
import re
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.comparison.build import build
from jobs.comparison.input.load import Loaded, load
from jobs.comparison.output.csv import csv_lines
from jobs.comparison.output.markdown import render_markdown
from jobs.errors import JobError
from jobs.report import LINE_MARKER
from tests.comparison.comparisons import terminal
from tests.support.reports import make_report

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from jobs.comparison.schema import Comparison

TEMPLATE: dict[str, Any] = json.loads(
    make_report(
        gpu=True,
        run_id="bad",
        timeseries=True,
        changes={
            "environment.image": {"ref": "image:1", "digest": "sha256:1"},
            "environment.git_sha": "abc",
            "environment.kubernetes": {"node": "n", "namespace": "s", "pod": "p", "job": "j", "index": 0},
            "status_reason": "why",
            "config.numerics.settings": {"switch": "on"},
            "warnings": [{"code": "c", "message": "m"}],
        },
    ).model_dump_json()
)
BAD = json.dumps(TEMPLATE).encode()
GOOD = json.dumps({**TEMPLATE, "run_id": "good"}, separators=(",", ":")).encode()
TEXTS = (
    "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1",  # noqa: RUF001
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "&lt;b&gt;",
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u202egnp.exe", "\u2066x\u2069", "\x00", "\x7f", "\u2028\u2029", "a\nb\rc",
    "[bold red]x[/]", "{{ 7 * 7 }}", "{% raw %}", "| a | b |", "```", "# heading", "[x](javascript:alert(1))",
    "../../etc/passwd", "%s%n{0}", "@everyone", "https://evil.example", "é" * 3000, "리눅스", "",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *TEXTS, None, True, False, 0, -1, 1, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, -0.0, 0.1, [], {}, [[]],
    [None] * 5, {"": ""}, [1e308, 1e308],
)  # fmt: skip
TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"null", b"true", b'"', b"\\", b"\\ud800", b"\x00", b"\x1b[2J",
    b"\xff\xfe", b"\xe2\x80\xae", b"[" * 300, b'{"a":' * 300, b"9" * 5000, b'"attempt":1,', b'"run_id":"x",', b"\n",
    LINE_MARKER.encode(), b"</script>", b"0.", b"-", b"e", b",", b"}", b"{", b"]", b"[",
)  # fmt: skip

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a JSON document that holds no other, with its path."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    inside = False
    for key, value in items:
        inside = True
        yield from leaves(value, (*path, key))
    if not inside:
        yield path, node


def with_value(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = deepcopy(TEMPLATE)
    node: Any = document
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return document


def mutated(source: random.Random) -> bytes:
    """A report with a few bytes changed, cut, doubled or replaced by what parsers stumble over."""
    raw = bytearray(BAD)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        at = source.randrange(len(raw) + 1)
        end = min(len(raw), at + source.choice((1, 1, 4, 50)))
        match source.randrange(5):
            case 0:
                raw[at:end] = source.randbytes(end - at)
            case 1:
                del raw[at:end]
            case 2:
                raw[at:at] = raw[at:end]
            case 3:
                raw[at:end] = source.choice(TOKENS)
            case _:
                del raw[at:]
    return bytes(raw)


def read(raw: bytes) -> Loaded:
    """``raw`` as a log line beside a good one, which must come through."""
    loaded = load(["-"], io.BytesIO(LINE_MARKER.encode() + raw + b"\n" + LINE_MARKER.encode() + GOOD + b"\n"))
    assert "good" in {run.run_id for run in loaded.runs}
    return loaded


def merge(loaded: Loaded) -> Comparison | None:
    """The comparison of what was loaded, shown in every way and looked at; ``None`` where nothing else was loaded.

    Where the runs are not comparable, what is not the good one is compared by itself: it must not hide there.
    """
    try:
        comparison = build(loaded)
    except JobError as error:
        assert_harmless(str(error))
        others = tuple(run for run in loaded.runs if run.run_id != "good")
        comparison = build(replace(loaded, runs=others))
    look_at(comparison)
    return comparison if len(loaded.runs) > 1 else None


def look_at(comparison: Comparison) -> None:
    assert_harmless(render_markdown(comparison))
    assert_harmless(re.sub(r"\x1b\[[0-9;]*m", "", terminal(comparison)))
    text = "".join(csv_lines(comparison))
    assert_harmless(text)
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r", "＝", "＋", "＠"))  # noqa: RUF001
            assert not cell.startswith(("-", "－")) or float(cell) <= 0  # noqa: RUF001
    assert comparison.model_dump_json(ensure_ascii=True).isascii()


def assert_harmless(text: str) -> None:
    assert not _CONTROL.search(text), ascii(_CONTROL.search(text))
    text.encode()
