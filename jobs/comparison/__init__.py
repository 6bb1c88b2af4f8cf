"""Reads reports and compares the runs behind them.

Reports go through :mod:`.load` (find them), :mod:`.comparability` (may they stand side by side),
:mod:`.metrics`, :mod:`.statistics` and :mod:`.verdict` (what they say) into one :class:`.model.Comparison`, put
together by :mod:`.build`, and from there to a terminal, Markdown and JSON. The modules that need SciPy or Jinja,
the extra ``compare``, are imported by name only.
"""
