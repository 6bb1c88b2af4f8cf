from __future__ import annotations

import logging

import tensorflow as tf

import jobs.mnist_tf.framework  # noqa: F401 - sets the filter


def test_logger_drops_the_retracing_message_and_no_other() -> None:
    logged: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    handler = Handler()
    logger = tf.get_logger()
    logger.addHandler(handler)
    try:
        logger.warning("%d out of the last 5 calls to %s triggered tf.function retracing.", 5, "f")
        logger.warning("another warning")
    finally:
        logger.removeHandler(handler)
    assert logged == ["another warning"]
