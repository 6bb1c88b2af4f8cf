from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.comparison.text import join_limited, markdown, number, pluralize, shortened
from jobs.io.stdio import escape_control_chars


@given(st.text())
def test_visible_text_is_one_printable_line(text: str) -> None:
    shown = escape_control_chars(text)
    assert shown.isprintable()
    assert "\n" not in shown


@given(st.text(st.characters(categories=["L", "N"])))
def test_letters_and_digits_of_any_script_stay_as_they_are(text: str) -> None:
    assert escape_control_chars(text) == text
    # What could be a commit's name is code.
    assert markdown(text).replace("&#46;", ".").replace("`", "") == text


@given(st.text())
def test_markdown_opens_no_cell_and_no_tag(text: str) -> None:
    shown = markdown(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", shown)
    assert "<" not in shown
    assert ">" not in shown
    assert "\n" not in shown
    assert "://" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("below_reference", "below_reference"),
        ("_emphasis_", r"\_emphasis\_"),
        ("devices[].name", r"devices\[\].name"),
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("one\ntwo", r"one\\ntwo"),
        ("\x1b[31mred", r"\\x1b\[31mred"),
        ("`rm`", r"\`rm\`"),
        ("https://x.example", "https:&#47;&#47;x.example"),
        ("@someone", "@&#8205;someone"),
        ("lost #12, see", "lost `#12`, see"),
        ("owner/name#12", "owner/`name#12`"),
        ("##1 #x", r"\#`#1` \#x"),
        ("GH-7 and gh-7", "`GH-7` and `gh-7`"),
        ("at 0123abc.", "at `0123abc`."),
        ("user@0123ABC", "user@&#8205;`0123ABC`"),
        ("f" * 40, f"`{'f' * 40}`"),
        ("f" * 64, "f" * 64),
        ("GPU-0123abcd-01ab", "`GPU-0123abcd-01ab`"),
        ("torch-lenet-matched-1", "torch-lenet-matched-1"),
        ("`0123abc`", r"\``0123abc`\`"),
    ],
)
def test_markdown_keeps_what_is_harmless_readable(text: str, shown: str) -> None:
    assert markdown(text) == shown


_CODE_OR_ESCAPE = re.compile(r"`[^`]*`|\\([^0-9A-Za-z\s])")
_LIVE = re.compile(r"(?i)#[0-9]|(?<![0-9a-z])gh-[0-9]|(?<![0-9a-z_])[0-9a-f]{7,40}(?![0-9a-z_])")


@given(
    st.lists(
        st.sampled_from(["#", "1", "12", "GH", "gh", "-", "_", "`", "\\", " ", "/", "@", "0123abc", "f", "é", ";"])
    )
)
def test_no_reference_to_an_issue_or_a_commit_is_left_live(parts: list[str]) -> None:
    """Outside of code, GitHub sees the text without backslashes, and entities as their characters."""
    shown = markdown("".join(parts)).replace("&#8205;", "\u200d")
    rest = _CODE_OR_ESCAPE.sub(lambda match: match[1] or " ", shown)
    assert "``" not in re.sub(r"\\.", " ", shown)
    assert not _LIVE.search(rest), rest


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (0.5, "0.500"), (19.327, "19.33"), (250.04, "250.0"), (12_345.6, "12,346"), (2e-9, "2.000e-09")],
)
def test_numbers_keep_four_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_pluralize_adds_an_s_except_for_one() -> None:
    assert [pluralize(count, "run") for count in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_join_limited_and_shortened_long_input_is_cut_with_a_note() -> None:
    assert join_limited(["a", "b"], 2) == "a, b"
    assert join_limited(["a", "b", "c", "d"], 2, "; ") == "a; b and 2 more"
    assert shortened("abc", 3) == "abc"
    assert shortened("x" * 1500, 3) == "xxx… (1,500 characters)"
