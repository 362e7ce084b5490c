"""What perception read from one video, and how it is kept on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.answers import Answers, Beside
from lucibot.core.events import Events
from lucibot.core.tracks import Tracks
from lucibot.objective.supervision import Supervision
from lucibot.providers.hand.base import Hand
from lucibot.providers.tracker.replay import as_told, packed, unpacked


@dataclass(frozen=True, kw_only=True)
class Perception:
    """All that was read from one video."""

    tracks: Tracks
    """Masks and hands; its poses are the refined ones."""
    scale: np.ndarray
    """(T, N) float32 apparent size of each object against its mesh."""
    fit: np.ndarray
    """(T, N) float32 IoU of the drawn pose with the mask, where it can be judged."""
    events: Events
    answers: Answers
    depth_m: np.ndarray
    """(K, H, W) float32 [m] at the keyframes, NaN where a hand is."""
    supervision: Supervision
    hands_at: np.ndarray | None = None
    """(R,) the frames in which hands were looked for; not kept by `save`."""
    hands: list[list[Hand]] | None = None
    """What was found there; not kept by `save`."""
    video_sha256: str | None = None
    """Of the frames that it was read from; None where it was loaded."""
    told: Tracks | None = None
    """What the tracker said, before poses were refined; None where it was loaded."""

    @property
    def poses(self) -> np.ndarray:
        """(T, N, 6) float32 object pose vectors; NaN for deformables."""
        return self.tracks.poses

    @property
    def confidence(self) -> np.ndarray:
        """(T, N) float32 in [0, 1]."""
        return self.tracks.confidence

    @property
    def lost(self) -> np.ndarray:
        """(T, N) bool."""
        return self.tracks.lost

    def save(self, folder: Path) -> None:
        """Writes `supervision.npz`, `tracks.npz`, `answers.json` and a depth picture a keyframe."""
        folder.mkdir(parents=True, exist_ok=True)
        self.supervision.save(folder / "supervision.npz")
        e, a = self.events, self.answers
        np.savez_compressed(
            folder / "tracks.npz", **packed(self.tracks), scale=self.scale, fit=self.fit,
            touched=e.touched, moving=e.moving, held=e.held, contact=e.contact,
            keyframe_contact=a.contact, around=a.around,
            **({} if a.beside is None else {"contact_beside": a.beside.contact}),
            **({} if self.told is None else as_told(self.told)),
            **({} if self.video_sha256 is None else {"video": np.array(self.video_sha256)}),
        )  # fmt: skip
        meta = {
            "first_contact": a.first_contact, "goal": a.goal, "contact_pairs": a.contact_pairs,
            "around_pairs": a.around_pairs,
            "reasons": a.reasons, "keyframes": self.supervision.keyframes.tolist(), "by": a.by,
        }  # fmt: skip
        if (b := a.beside) is not None:
            meta["beside"] = {
                "by": b.by, "first_contact": b.first_contact, "goal": b.goal, "reasons": b.reasons
            }  # fmt: skip
        (folder / "answers.json").write_text(json.dumps(meta, indent=1))
        for k, depth in enumerate(self.depth_m):
            # Tenths of a millimetre in 16 bits; 0 is unknown, or farther than 6.55 m.
            tenths = np.round(depth * 1e4)
            tenths = np.where((tenths > 0) & (tenths <= 65535), tenths, 0)
            cv2.imwrite(str(folder / f"depth_{k:02d}.png"), tenths.astype(np.uint16))

    @classmethod
    def load(cls, folder: Path) -> Perception:
        meta = json.loads((folder / "answers.json").read_text())
        with np.load(folder / "tracks.npz") as z:
            data = {k: z[k] for k in z.files}
        pictures = [
            cv2.imread(str(folder / f"depth_{k:02d}.png"), cv2.IMREAD_UNCHANGED)
            for k in range(len(meta["keyframes"]))
        ]
        pairs = tuple(tuple(p) for p in meta["contact_pairs"])
        depth = np.stack(pictures).astype(np.float32) / 1e4
        return cls(
            tracks=unpacked(data),
            scale=data["scale"], fit=data["fit"],
            events=Events(
                contact_pairs=pairs,
                **{n: data[n] for n in ("touched", "moving", "held", "contact")},
            ),
            answers=Answers(
                first_contact=meta["first_contact"], goal=meta["goal"], contact_pairs=pairs,
                contact=data["keyframe_contact"],
                around_pairs=tuple(tuple(p) for p in meta["around_pairs"]), around=data["around"],
                reasons=meta["reasons"], by=meta.get("by", "pixels"),
                beside=Beside(**meta["beside"], contact=data["contact_beside"])
                if "beside" in meta else None,
            ),
            depth_m=np.where(depth > 0, depth, np.nan),
            supervision=Supervision.load(folder / "supervision.npz"),
        )  # fmt: skip
