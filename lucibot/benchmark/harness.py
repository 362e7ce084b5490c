"""Timing that survives a noisy machine: contestants take turns, and what counts is their ratio."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

SHORTEST_S = 0.02
"""A contestant that is faster than this is called several times in a row and the mean is taken."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One line of a benchmark's result."""

    name: str
    """`benchmark.metric`."""
    value: float
    low: float | None = None
    high: float | None = None
    """Smallest and largest over the rounds."""
    unit: str = ""
    target: str = ""
    """What the value should be, in words such as "at least 1.5"."""

    def line(self) -> str:
        spread = "" if self.low is None else f"  ({self.low:.4g} to {self.high:.4g})"
        target = f"  [{self.target}]" if self.target else ""
        return f"{self.name} {self.value:.4g}{' ' + self.unit if self.unit else ''}{spread}{target}"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a call, one figure a round; rounds of contestants of one race belong together."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


@dataclass(kw_only=True)
class Bench:
    """What a benchmark's `measure(bench)` is given: where it runs, and where its values go."""

    name: str
    device: str = "cpu"
    repeats: int = 7
    """Rounds of a race."""
    say: Callable[[str], None] = print
    values: list[Value] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def race(
        self, contestants: dict[str, Callable[[], object]], *, of: str = "", repeats: int = 0
    ) -> dict[str, Timing]:
        """Call every contestant in turn, `repeats` times over, after one call to warm up.

        Args:
            of: a workload, put between the benchmark's name and the contestant's.
        """
        calls = {}
        for name, contestant in contestants.items():
            first = self._time(contestant, 1)
            again = self._time(contestant, 1)
            calls[name] = max(1, round(SHORTEST_S / max(again, 1e-7))) if again < SHORTEST_S else 1
            self.value(self._join(of, name, "first_call"), first * 1e3, unit="ms")
        rounds: dict[str, list[float]] = {n: [] for n in contestants}
        for _ in range(repeats or self.repeats):
            for name, contestant in contestants.items():
                rounds[name].append(self._time(contestant, calls[name]))
        timings = {n: Timing(rounds=tuple(r)) for n, r in rounds.items()}
        for name, t in timings.items():
            low, high = min(t.rounds) * 1e3, max(t.rounds) * 1e3
            self.value(self._join(of, name), t.median * 1e3, low=low, high=high, unit="ms")
        return timings

    def once(self, metric: str, call: Callable[[], object]) -> float:
        """Seconds of a single call, for what takes minutes or cannot be done twice."""
        seconds = self._time(call, 1)
        self.value(metric, seconds, unit="s")
        return seconds

    def ratio(self, metric: str, above: Timing, below: Timing, *, target: str = "") -> float:
        """Median over the rounds of `above / below`."""
        each = [a / b for a, b in zip(above.rounds, below.rounds, strict=True)]
        value = statistics.median(each)
        self.value(metric, value, low=min(each), high=max(each), unit="x", target=target)
        return value

    def value(self, metric: str, value: float, **more) -> None:
        """Record and print one figure."""
        v = Value(name=f"{self.name}.{metric}", value=float(value), **more)
        self.values.append(v)
        self.say(v.line())

    def roofline(
        self, contestant: str, timing: Timing, *, moved_bytes: float = 0, operations: float = 0
    ) -> None:
        """Set a contestant's rate beside what the device can do, measured here and now.

        Args:
            moved_bytes: that a call has to read and write at the least, against copying a tensor.
            operations: in float32 that a call does, against multiplying matrices; a multiplication
                and an addition count as two.
        """
        for what, amount, unit, ceiling in (
            ("copy", moved_bytes, "GB/s", copy_bytes_s), ("matmul", operations, "Gop/s", matmul_ops_s)
        ):  # fmt: skip
            if amount:
                rate = amount / timing.median
                self.value(self._join(contestant, "rate"), rate / 1e9, unit=unit)
                share = 100 * rate / ceiling(self)
                self.value(self._join(contestant, f"share_of_{what}"), share, unit="%")

    def skip(self, contestant: str, why: str) -> None:
        """Say that a contestant could not take part."""
        self.skipped[contestant] = why
        self.say(f"{self.name}.{contestant} skipped: {why}")

    def record(self) -> dict:
        return {"values": [asdict(v) for v in self.values], "skipped": self.skipped}

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked to."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def gpu_busy(self, metric: str, call: Callable[[], object], *, target: str = "") -> None:
        """Record what a call keeps the GPU busy, by its own counters [ms]: what is left where calls
        queue up faster than they are done."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        if self.device == "cpu":
            return
        call()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            for _ in range(self.repeats):
                call()
            torch.cuda.synchronize()
        kernels = [e for e in found.key_averages() if e.device_type.name == "CUDA"]
        busy_us = sum(e.self_device_time_total for e in kernels)
        self.value(metric, busy_us / self.repeats / 1e3, unit="ms", target=target)

    def best(self, call: Callable[[], object], calls: int = 5) -> float:
        """The least of the seconds that some calls take, after one to warm up."""
        return min(self._time(call, 1) for _ in range(calls + 1))

    def _time(self, contestant: Callable[[], object], calls: int) -> float:
        self.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            contestant()
        self.synchronize()
        return (time.perf_counter() - begin) / calls

    @staticmethod
    def _join(*parts: str) -> str:
        return ".".join(p for p in parts if p)


def copy_bytes_s(bench: Bench, size: int = 1 << 26) -> float:
    """Bytes a second that copying a tensor of `size` float32 reads and writes."""
    import torch

    x = torch.zeros(size, device=bench.device)
    y = torch.empty_like(x)
    return 8 * size / bench.best(lambda: y.copy_(x))


def matmul_ops_s(bench: Bench, size: int = 2048) -> float:
    """Operations a second of multiplying float32 matrices of `size`."""
    import torch

    x = torch.ones(size, size, device=bench.device)
    y = torch.empty_like(x)
    return 2 * size**3 / bench.best(lambda: torch.mm(x, x, out=y))


def machine(device: str) -> dict[str, str | int]:
    """What a figure needs beside it to mean something."""
    found: dict[str, str | int] = {
        "cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)) if hasattr(
            os, "sched_getaffinity") else os.cpu_count() or 1,
        "python": platform.python_version(), "system": platform.system(),
    }  # fmt: skip
    if device != "cpu":
        import torch

        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda or "",
                  "torch": torch.__version__}  # fmt: skip
    return found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(x.partition(":")[2].strip() for x in f if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
