"""What the runs show: comparability, statistics, verdicts, parity, regressions, nodes."""
