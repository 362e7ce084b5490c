"""What a run has paid for, line by line, and the cap on it.

A line is on disk before its call is made and another after it, so that a killed run forgets no
call: one that was begun and of which no end is known counts with what it could have cost.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lucibot.core.errors import RunFailed, UserError

BEGUN, PAID, VOID = "begun", "paid", "void"


@dataclass(frozen=True, kw_only=True)
class Paid:
    """What all calls of one kind came to."""

    what: str
    calls: int
    """Those that were made, or may have been."""
    usd: float
    """What they came to; where the end is not known, what they could have come to."""
    unknown: int = 0
    """Calls of which no price is known: they count nothing."""
    open: int = 0
    """Calls of which it is not known whether they were made."""


def passes(usd: float, max_usd: float) -> bool:
    """Whether a sum of prices is above a cap; sums of floats are inexact, and what comes to the very cap is
    not."""
    return usd > max_usd + 1e-9


class CapReached(RunFailed):
    """The next call could cost more than is left; it was not made."""


class Call:
    """One paid call under way.

    Args:
        name: under which its price can be settled later.
    """

    def __init__(self, name: str, usd: float | None):
        self.name, self.usd = name, usd
        self.known: str | None = None
        """How it ended, where that is known."""

    def paid(self, usd: float | None) -> None:
        """It was made and came to `usd`."""
        self.usd, self.known = usd, PAID

    def void(self) -> None:
        """It was certainly not made, or is not charged."""
        self.usd, self.known = 0.0, VOID


class Ledger:
    """The calls of one run, in `path` (one JSON object a line).

    Args:
        max_usd: what they may cost in all; None for no cap.
    """

    def __init__(self, path: Path, max_usd: float | None = None):
        self.path, self.max_usd = path, max_usd
        self._lock = threading.Lock()

    def spent_usd(self) -> float:
        """What all calls so far came to, or could have come to where the end is not known. Calls of
        unknown price count nothing.

        Raises:
            UserError: the ledger was damaged.
        """
        with self._lock:
            return self._spent()

    def paid(self) -> list[Paid]:
        """What was paid for, a row for each kind of call, in the order in which they began.

        Raises:
            UserError: the ledger was damaged.
        """
        with self._lock:
            entries = self._entries()
        last = {e["call"]: e for e in entries}
        kinds: dict[str, list[dict]] = {}
        for e in entries:
            if e.get("event") == BEGUN and last[e["call"]].get("event") != VOID:
                kinds.setdefault(str(e.get("what")), []).append(last[e["call"]])
        return [
            Paid(
                what=what, calls=len(calls), usd=sum(c["usd"] or 0.0 for c in calls),
                unknown=sum(c["usd"] is None for c in calls),
                open=sum(c.get("event") == BEGUN for c in calls),
            )
            for what, calls in kinds.items()
        ]  # fmt: skip

    @contextmanager
    def call(self, what: str, *, usd: float | None) -> Iterator[Call]:
        """Enter a call that may cost up to `usd`; None where no price is known.

        Raises:
            CapReached: it could pass the cap; nothing was written.
            UserError: there is a cap, and no price is known.
        """
        with self._lock:
            spent = self._spent()
            if self.max_usd is not None:
                if usd is None:
                    raise UserError(
                        f"{what}: no price is known, so --max-usd {self.max_usd:g} cannot "
                        "be kept; give its price (--services.prices FILE), or no cap (--max-usd none)"
                    )
                if passes(spent + usd, self.max_usd):
                    raise CapReached(
                        f"{what} could cost {usd:.4g} USD, and {spent:.4g} of the "
                        f"{self.max_usd:g} USD that this run may spend are spent: the call was not "
                        "made; raise --max-usd to go on"
                    )
            name = secrets.token_hex(6)
            self._write({"call": name, "event": BEGUN, "what": what, "usd": usd})
        call = Call(name, usd)
        try:
            yield call
        except BaseException:
            if call.known:
                self._end(name, call.known, call.usd)
            raise  # Else whether it is charged is not known, and it stays begun.
        self._end(name, call.known or PAID, call.usd)

    def settle(self, name: str, usd: float) -> None:
        """What a call came to, as its service says it once it is over.

        Args:
            name: of the call, from `Call.name`.
        """
        self._end(name, PAID if usd else VOID, usd)

    def _end(self, name: str, event: str, usd: float | None) -> None:
        with self._lock:
            self._write({"call": name, "event": event, "usd": usd})

    def _spent(self) -> float:
        usd: dict[str, float | None] = {}
        for entry in self._entries():
            usd[entry["call"]] = entry["usd"]
        return sum(v for v in usd.values() if v is not None)

    def _entries(self) -> list[dict]:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        entries = []
        for i, line in enumerate(lines[:-1]):
            try:
                entry = json.loads(line)
                entries.append({"call": entry["call"], "usd": entry["usd"], **entry})
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}: line {i + 1} is damaged, so what was spent is not known; mend or "
                    "remove it"
                ) from None
        # What follows the last line break was cut off while it was written, before its call.
        return entries

    def _write(self, entry: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as f:
            end = f.seek(0, os.SEEK_END)
            if end:
                f.seek(end - 1)
                if f.read(1) != b"\n":
                    f.truncate(self._last_break())
            line = json.dumps({**entry, "time": round(time.time(), 3)}) + "\n"
            f.write(line.encode())
            f.flush()
            os.fsync(f.fileno())

    def _last_break(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1
