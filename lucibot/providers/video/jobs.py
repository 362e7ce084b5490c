"""Drives candidate videos' jobs, so that nothing is bought twice.

    <root>/<fingerprint>/job.json    what was asked for, the service's id of it, and how it ended
    <root>/<fingerprint>/raw/        what came, as it came; its sha256 is in the record

A candidate's fingerprint is the hash of what decides it, so a run that asks for more, or for the
same again, finds what it has. The record is written before a job is submitted ("intended"), with
the job's id before it is first polled ("submitted"), and with the sum of what came ("fetched"). A
killed process leaves a job that the next one polls. One gap cannot be closed from here: killed
between the service's taking a job and the id's being on disk, a run finds its intent alone. Where the
service finds jobs by a reference of ours (`FindsJobs`), it is asked for that job; elsewhere the run
says that it does not know, and asks again.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.progress import Progress, silent
from lucibot.core.video import sha256_file, why_no_video
from lucibot.providers.video.base import (
    FindsJobs,
    Immediate,
    Job,
    JobState,
    JobStatus,
    NotTaken,
    Refused,
    VideoModel,
    VideoRequest,
)
from lucibot.services import Services
from lucibot.services.keys import hidden, quoted
from lucibot.store.run import digest, write_json

RECORD = "job.json"
INTENDED, SUBMITTED, FETCHED = "intended", "submitted", "fetched"
DOWNLOADS = 2
"""Times that a video is fetched which turns out to be none."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What became of one request."""

    index: int
    fingerprint: str
    folder: Path
    raw: Path | None
    """The video as it came; None if none came."""
    sha256: str | None
    """Of `raw`."""
    trouble: str = ""
    """Why none came."""


class Jobs:
    """The candidates of one model, kept below `root`, whatever else is cleared."""

    def __init__(
        self,
        root: Path,
        model: VideoModel,
        services: Services,
        *,
        note: Callable[[str], None],
        progress: Progress = silent,
    ):
        self.root, self.model, self.services = root, model, services
        self.note, self._say = note, progress
        self._lock = threading.Lock()
        self._done: dict[int, float] = {}
        self._stop = threading.Event()

    def fingerprint(self, request: VideoRequest) -> str:
        return digest({"kind": self.model.kind, **self.model.identity(request)})

    def asked_for(self, request: VideoRequest) -> bool:
        """Whether a job of this candidate is known that is not to be asked for again."""
        folder = self.root / self.fingerprint(request)
        record = self._record(request, folder)
        if isinstance(self.model, Immediate):
            return record.get("state") == FETCHED and _whole(folder, record)
        return record.get("state") in (SUBMITTED, FETCHED, JobState.REFUSED)

    def make(self, requests: Sequence[VideoRequest]) -> list[Candidate]:
        """See every request through, several at once; returns their candidates in order.

        Raises:
            LuciBotError: a candidate could not be asked for or fetched. No new job is begun then,
                those under way are seen through first, and all are kept.
        """
        self._done = {r.index: 0.0 for r in requests}
        fingerprints = [self.fingerprint(r) for r in requests]
        # Two files of one content are one candidate.
        asked = dict(zip(reversed(fingerprints), reversed(requests), strict=True))
        errors: dict[str, Exception] = {}

        def one(fingerprint: str) -> Candidate | None:
            if errors or self._stop.is_set():
                return None
            try:
                return self._see_through(asked[fingerprint], fingerprint)
            except Exception as e:
                errors[fingerprint] = e
                return None

        order = list(dict.fromkeys(fingerprints))
        with ThreadPoolExecutor(max(1, self.model.at_once), "candidate") as pool:
            try:
                made = dict(zip(order, pool.map(one, order), strict=True))
            except BaseException:
                # Interrupted: whoever waits for a service stops waiting.
                self._stop.set()
                self.model.close()
                raise
        for fingerprint in order:
            if fingerprint in errors:
                raise errors[fingerprint]
        return [
            replace(made[f], index=r.index) for f, r in zip(fingerprints, requests, strict=True)
        ]

    def _see_through(self, request: VideoRequest, fingerprint: str) -> Candidate:
        folder = self.root / fingerprint
        name = f"candidate {request.index}"
        record = self._record(request, folder)
        state = record.get("state")
        if state == FETCHED:
            if _whole(folder, record):
                return self._candidate(request, fingerprint, record)
            again = self.model.again if isinstance(self.model, Immediate) else "fetched"
            self.note(f"{name}: {record['file']} is damaged; it alone is {again} again")
        if state == JobState.REFUSED:
            return self._candidate(request, fingerprint, record)
        if state == INTENDED and self.model.price_usd(request) != 0:
            record = self._look_for(request, folder, record, name)
            state = record["state"]
        status = None
        if state in (SUBMITTED, FETCHED):
            status = self._wait(Job(id=record["job"], request=request), name)
            if status.state is JobState.FAILED and state == FETCHED:
                status = None  # The service no longer has what it gave once.
        if status is None:
            record = self._submit(request, folder, record)
            if record["state"] == JobState.REFUSED:
                self.note(f"{name}: refused: {record['message']}")
                return self._candidate(request, fingerprint, record)
            status = self._wait(Job(id=record["job"], request=request), name)
        self._settle(folder, record, status)
        if status.state is JobState.DONE:
            record = self._fetch(Job(id=record["job"], request=request), folder, record, name)
        else:
            said = quoted(status.message) or "the service gives no reason"
            record = {**record, "state": str(status.state), "message": said}
            _write(folder, record)
            self.note(f"{name}: {status.state}: {said}")
        self._tell(request, f"{name}: {record['state']}", 1.0)
        return self._candidate(request, fingerprint, record)

    def _record(self, request: VideoRequest, folder: Path) -> dict[str, Any]:
        """What is known of a candidate; empty where nothing is.

        Raises:
            RunFailed: it cannot be read. Records are renamed into place, so nothing of ours leaves
                half of one, and guessing might buy again.
        """
        path = folder / RECORD
        try:
            record = json.loads(path.read_text())
            if record["state"] in (INTENDED, SUBMITTED, FETCHED, *JobState):
                return record
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            pass
        if self.model.price_usd(request) == 0:
            self.note(f"candidate {request.index}: {path} is damaged; this one is made again")
            return {}
        raise RunFailed(
            f"{path} cannot be read, so whether this video was bought is not known; remove "
            f"{folder} to ask for it again"
        )

    def _look_for(
        self, request: VideoRequest, folder: Path, record: dict, name: str
    ) -> dict[str, Any]:
        """The record of a job of which only the intent is known: submitted, if it can be found."""
        if isinstance(self.model, FindsJobs):
            job = self.model.find(_named(request, folder, record["attempt"]))
            if job is not None:
                self.note(
                    f"{name}: a run ended while this video was being asked for; its job is found"
                )
                return _write(folder, {**record, "state": SUBMITTED, "job": job})
        self.note(
            f"{name}: a run ended while this video was being asked for, and whether it was "
            "bought is not known here; it is asked for again"
        )
        return record

    def _submit(self, request: VideoRequest, folder: Path, before: dict) -> dict:
        usd, attempt = self.model.price_usd(request), before.get("attempt", 0) + 1
        record = {
            "index": request.index, "kind": self.model.kind,
            "identity": self.model.identity(request), "state": INTENDED, "attempt": attempt,
            "usd": usd, "time": round(time.time(), 3),
        }  # fmt: skip
        request = _named(request, folder, attempt)
        folder.mkdir(parents=True, exist_ok=True)
        if usd == 0:
            _write(folder, record)
            return self._take(request, folder, record)
        # The cap is asked before anything else, so that what it stops leaves no intent.
        what = f"video {self.model.kind} {record['identity'].get('model', '')}".strip()
        with self.services.ledger.call(what, usd=usd) as call:
            _write(folder, record)
            try:
                record = self._take(request, folder, {**record, "call": call.name})
            except (UserError, NotTaken):
                call.void()
                _write(folder, before) if before else (folder / RECORD).unlink()
                raise
            if record["state"] == JobState.REFUSED:
                call.void()
            return record

    def _take(self, request: VideoRequest, folder: Path, record: dict) -> dict:
        """Ask for it; the record with the job's id, or with why the service will not do it."""
        try:
            job = self.model.submit(request)
        except Refused as e:
            return _write(
                folder, {**record, "state": str(JobState.REFUSED), "message": quoted(str(e))}
            )
        return _write(folder, {**record, "state": SUBMITTED, "job": job})

    def _settle(self, folder: Path, record: dict, status: JobStatus) -> None:
        """Let the ledger know what a job came to, where its service says so: what failed is often
        given back."""
        if status.usd is not None and record.get("call"):
            self.services.ledger.settle(record["call"], status.usd)
            record["usd"] = status.usd

    def _wait(self, job: Job, name: str) -> JobStatus:
        begin = time.monotonic()
        while True:
            status = self.model.poll(job)
            if status.over:
                return status
            self._tell(
                job.request, f"{name}: {hidden(status.message) or status.state}", status.progress
            )
            if time.monotonic() - begin > self.model.patience_s:
                raise RunFailed(
                    f"{name}: job {job.id} is still {status.state} after "
                    f"{self.model.patience_s:.0f} s; it is kept, and a resumed run goes on waiting"
                )
            if self._stop.wait(self.model.poll_s):
                raise RunFailed(f"{name}: stopped while waiting for job {job.id}; it is kept")

    def _fetch(self, job: Job, folder: Path, record: dict, name: str) -> dict:
        raw, part = folder / "raw", folder / "fetching"

        def progress(message: str, done: float | None = None) -> None:
            self._tell(job.request, f"{name}: {message}", done)

        for _ in range(DOWNLOADS):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            file = self.model.fetch(job, part, progress)
            # What cost nothing is looked at by intake alone, which says more of it.
            wrong = None if self.model.price_usd(job.request) == 0 else why_no_video(file)
            if wrong is None:
                break
        else:
            raise RunFailed(
                f"{name}: what job {job.id} gave is no video, {DOWNLOADS} times ({quoted(wrong, 120)}); the job is "
                "kept, and a resumed run fetches it again"
            )
        record = {**record, "state": FETCHED, "file": f"raw/{file.relative_to(part).as_posix()}",
                  "sha256": sha256_file(file)}  # fmt: skip
        shutil.rmtree(raw, ignore_errors=True)
        part.rename(raw)
        return _write(folder, record)

    def _candidate(self, request: VideoRequest, fingerprint: str, record: dict) -> Candidate:
        folder = self.root / fingerprint
        if record["state"] == FETCHED:
            return Candidate(
                index=request.index, fingerprint=fingerprint, folder=folder,
                raw=folder / record["file"], sha256=record["sha256"],
            )  # fmt: skip
        return Candidate(
            index=request.index, fingerprint=fingerprint, folder=folder, raw=None, sha256=None,
            trouble=f"{record['state']}: {record['message']}",
        )  # fmt: skip

    def _tell(self, request: VideoRequest, message: str, done: float | None) -> None:
        if self._stop.is_set():
            raise RunFailed(f"stopped at: {message}")  # Work at hand ends where it next speaks.
        with self._lock:
            if done is not None:
                self._done[request.index] = done
            self._say(message, sum(self._done.values()) / max(len(self._done), 1))


def _named(request: VideoRequest, folder: Path, attempt: int) -> VideoRequest:
    return replace(request, reference=f"{folder.name}-{attempt}")


def _write(folder: Path, record: dict) -> dict:
    write_json(folder / RECORD, record)
    # What was bought must outlive a power cut, too.
    for path in (folder / RECORD, folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return record


def _whole(folder: Path, record: dict) -> bool:
    file = folder / record["file"]
    return file.is_file() and sha256_file(file) == record["sha256"]
