"""The part of the report that holds the repeated trainings."""

from __future__ import annotations

from pydantic import Field

from jobs.report.configuration import Amount, Count, Model


class Repeats(Model):
    """The trainings after the first (``--repeat``). They are measured, and nothing else of them is reported."""

    trainings: Count = Field(description="how many were finished")
    images: Count = Field(description="images trained in their train phase, also by one that was not finished")
    train_s: Amount = Field(description="time of training them")
    between_s: Amount = Field(
        description="time between epochs in which the initial state was set back and the order of images was drawn"
    )
