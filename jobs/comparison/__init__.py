"""Reads reports and compares the runs behind them.

``input`` reads the reports, ``analysis`` says what they show, ``build`` makes one :class:`.schema.Comparison` of that,
and ``output`` shows and writes it. Modules that need SciPy or Jinja, the extra ``compare``, are imported by name only.
"""
