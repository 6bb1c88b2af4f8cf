"""Reads reports and compares the runs behind them."""
