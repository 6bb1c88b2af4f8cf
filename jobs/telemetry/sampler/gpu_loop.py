"""The GPU's loop: the only place where NVML is called, so that a call that hangs holds up nothing else."""

from __future__ import annotations

import queue
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.sampler.device_lookup import describe, find
from jobs.telemetry.sampler.gpu_sampler import GpuSampler
from jobs.telemetry.sampler.messages import DeviceFacts, DeviceQuery, all_unknown
from jobs.telemetry.sampler.nvml import NvmlUnavailable, Session, call, text, uuid_of
from jobs.telemetry.sampler.schedule import next_message
from jobs.telemetry.sampler.usage_before_run import baselines

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import Message, MessageWriter
    from jobs.telemetry.sampler.messages import Settings, UsageBeforeRun


class GpuLoop:
    """Opens NVML, finds the job's GPU once it is told which, and reads it at several rates until told to stop."""

    def __init__(self, settings: Settings, outbox: MessageWriter) -> None:
        self._settings = settings
        self._outbox = outbox
        self._baselines: dict[str, UsageBeforeRun] = {}
        self._baseline_s = 0.0
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            session = Session()
        except NvmlUnavailable as error:
            self._send_inventory(None, [], str(error))
            self._answer_without_nvml(str(error))
            return
        try:
            self._read_inventory(session)
            self._watch(session)
        finally:
            session.close()

    def _send_inventory(self, driver_version: str | None, devices: list[dict[str, str]], error: str | None) -> None:
        self._outbox.say("hello", driver_version=driver_version, devices=devices, error=error)

    def _read_inventory(self, session: Session) -> None:
        # Before the framework has touched a GPU, while it is still being imported.
        if self._settings.gpu_untouched:
            self._baselines, self._baseline_s = baselines(session), time.monotonic()
        try:
            names = [
                {"name": text(call(pynvml.nvmlDeviceGetName, gpu)), "uuid": uuid_of(gpu)} for gpu in session.gpus()
            ]
            self._send_inventory(session.driver_version(), names, None)
        except NvmlUnavailable as error:
            self._send_inventory(None, [], str(error))

    def _answer_without_nvml(self, reason: str) -> None:
        while True:
            message = self.inbox.get()
            if message["kind"] == "attach":
                self._say_facts(DeviceFacts(null_reasons=all_unknown(reason)), error=reason)
            elif message["kind"] == "stop":
                self._outbox.say("gpu_end", rates={}, other_process_count=None)
                return

    def _watch(self, session: Session) -> None:
        device: GpuSampler | None = None
        while True:
            message = next_message(self.inbox, device.schedule) if device is not None else self.inbox.get()
            kind = message["kind"] if message is not None else None
            if message is not None and kind == "attach":
                if self._baseline_s > message["untouched_until_s"]:
                    # NVML was so slow to start that the job may have been first: nothing can be said of before.
                    self._baselines = {}
                device = self._attach(session, message["wanted"])
            if device is not None:
                device.read_due()
                if kind == "mark":
                    device.read_counters()
                device.say_changes()
            if kind == "stop":
                rates, others = ({}, None) if device is None else device.finish()
                self._outbox.say("gpu_end", rates=rates, other_process_count=others)
                return

    def _attach(self, session: Session, wanted: dict[str, Any] | None) -> GpuSampler | None:
        if wanted is None:
            self._say_facts(_system_facts(session), error="the job runs on the CPU")
            return None
        try:
            handle, method = find(session, DeviceQuery(**wanted))
            facts = describe(session, handle, method)
        except NvmlUnavailable as error:
            self._say_facts(DeviceFacts(null_reasons=all_unknown(str(error))), error=str(error))
            return None
        self._say_facts(facts, error=None)
        return GpuSampler(handle, self._settings, self._outbox)

    def _say_facts(self, facts: DeviceFacts, *, error: str | None) -> None:
        baseline = self._baselines.get(facts.mig_uuid or facts.uuid or "")
        self._outbox.say("facts", facts=asdict(facts), error=error, baseline=baseline and asdict(baseline))


def _system_facts(session: Session) -> DeviceFacts:
    try:
        driver, cuda = session.driver_version(), session.cuda_driver_version()
    except NvmlUnavailable as error:
        return DeviceFacts(null_reasons=all_unknown(str(error)))
    return DeviceFacts(driver_version=driver, cuda_driver_version=cuda)
