"""Runs a job: trains, evaluates, and builds the report."""
