"""Judges videos one by one and keeps each verdict as it is made.

A verdict's fingerprint is the hash of what it rests on: the video's bytes, the judge and its
settings, the scene and the task's words and goal. So a run that was killed while judging, or
that is resumed to take another candidate, judges nothing twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from lucibot.core.scene_view import SceneView
from lucibot.core.video import sha256_file, sha256_of
from lucibot.providers.verifier import VerifierConfig
from lucibot.providers.verifier.base import Verdict, Verifier
from lucibot.services import Services
from lucibot.store.configs import settled
from lucibot.store.run import digest, write_json
from lucibot.task import Task
from lucibot.vision.clip import read_clip, reading_of


class Judging:
    """One judge on the videos of one scene.

    Args:
        folder: where verdicts are kept.
        version: of what judges do; verdicts of another are not taken.
        scene: digest of `view`.
    """

    def __init__(
        self,
        folder: Path,
        config: VerifierConfig,
        *,
        version: int,
        task: Task,
        view: SceneView,
        scene: str,
        services: Services,
        note: Callable[[str], None],
    ):
        self.folder, self.config, self.services, self.note = folder, config, services, note
        self.task, self.view = task, view
        told = task.digest_of("scene", "roles", "hands", "goal", "instruction")
        self._rests_on = [version, settled(config, sha256_of), scene, told]
        self._judge: Verifier | None = None
        self._lock = Lock()

    def judge(self, video: Path, sha256: str) -> Verdict:
        """The verdict on a clip whose file has this sum: the kept one, or a new one, which is kept. May be
        called by several threads."""
        reading = reading_of(video)
        told = [sha256_file(reading)] if reading.is_file() else []
        path = self.folder / f"{digest([*self._rests_on, sha256, *told])}.json"
        verdict = self._kept(path)
        if verdict is None:
            with self._lock:
                self._judge = self._judge or self.config.create(self.services)
            verdict = self._judge.judge(self.task, self.view, read_clip(video))
            told = dataclasses.asdict(verdict)
            with self._lock:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_json(path, {"sha256": digest(told), "video": sha256, "verdict": told})
        return verdict

    def _kept(self, path: Path) -> Verdict | None:
        try:
            kept = json.loads(path.read_text())
            if kept["sha256"] == digest(kept["verdict"]):
                return Verdict.from_dict(kept["verdict"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        self.note(f"{path.name} is damaged; that video is judged again")
        return None
