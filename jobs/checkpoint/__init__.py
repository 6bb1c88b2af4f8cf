"""Checkpoints: an interrupted run is resumed from the last one and ends with the same bits."""
