"""Other hands: valid clips of the storyboard, the hand in another colour.

Select and the tracker know no colour of hands, so what they say must not depend on it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from lucibot.benchmark.hands import TONES, recoloured
from lucibot.core.video import Video, read_video, write_video
from lucibot.providers.tracker import EmbeddedTracker
from lucibot.providers.verifier import PixelVerifier

from .clips import Clip
from .scores import iou


def measured(clip: Clip, tone: str, folder: Path, *, track: bool) -> None:
    """One clip in one tone, "" as it was drawn: its row, kept as a file."""
    path = folder / f"{clip.task.name}-{clip.seed}-{tone or 'drawn'}.json"
    row = json.loads(path.read_text()) if path.is_file() else {}
    if row and (not track or "masks" in row):
        return
    drawn, view, video = clip.drawn(), clip.view(), clip.video()
    if tone:
        video = Video(frames=recoloured(video.frames, drawn["hand"], tone), fps=video.fps)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "tone.mp4"
            write_video(file, video, crf=18)
            video = read_video(file)
    verdict = PixelVerifier().create().judge(clip.task, view, video)
    row = {"task": clip.task.name, "seed": clip.seed, "tone": tone, "usable": bool(verdict.usable),
           "reasons": list(verdict.reasons)}  # fmt: skip
    if track:
        tracks = EmbeddedTracker().create().track(clip.task, view, video)
        row["masks"] = float(np.mean([
            iou(a, b) for i in range(tracks.masks.shape[1])
            for a, b in zip(tracks.masks[:, i], drawn["masks"][:, i], strict=True) if b.any()
        ]))  # fmt: skip
        there = drawn["hand"].mean((1, 2)) > 1e-3
        row["hand"] = float(np.mean([
            iou(a, b) for a, b in zip(tracks.hand[there], drawn["hand"][there], strict=True)
        ]))  # fmt: skip
        row["left"] = float(tracks.hand[~there].mean()) if (~there).any() else 0.0
    path.write_text(json.dumps(row, indent=1))
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def table(folder: Path) -> str:
    """Markdown: a line a tone, means over tasks and seeds, beside the drawn tone's on the same."""
    rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    of = {(r["task"], r["seed"], r["tone"]): r for r in rows}
    lines = ["| hand | valid taken | masks [IoU] | to the drawn | hands [IoU] | hand where none is |",
             "| --- " * 6 + "|"]  # fmt: skip
    for tone in ("", *TONES):
        mine = [r for r in rows if r["tone"] == tone]
        if not mine:
            continue
        read = [r for r in mine if "masks" in r]
        first = [of.get((r["task"], r["seed"], ""), {}).get("masks", np.nan) for r in read]
        masks, hands, left = (
            np.mean([r[k] for r in read]) if read else np.nan for k in ("masks", "hand", "left")
        )
        lines.append(
            f"| {tone or 'as drawn'} | {sum(r['usable'] for r in mine)}/{len(mine)} | {masks:.3f} | "
            f"{masks - np.mean(first) if first else np.nan:+.3f} | {hands:.3f} | {left:.2%} |"
        )
    lines += ["", *(f"- rejected: {r['task']} {r['seed']} {r['tone'] or 'as drawn'}: "
                    f"{'; '.join(r['reasons'])}" for r in rows if not r["usable"])]  # fmt: skip
    return "\n".join(lines)
