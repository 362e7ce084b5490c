"""The rejection of bad videos (paper, section 3.2)."""

from __future__ import annotations

import dataclasses
import json

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import read_video
from lucibot.pipeline import Context
from lucibot.providers.verifier.base import USABLE_ABOVE, Verdict
from lucibot.store.run import write_json
from lucibot.store.verdicts import VERDICTS


def run(ctx: Context) -> None:
    """Writes `verdicts.json`: every candidate's points and reasons, and which one was chosen."""
    view = SceneView.load(ctx.inputs["scene"])
    listed = json.loads((ctx.inputs["imagine"] / "candidates.json").read_text())["candidates"]
    forced = ctx.config.force_video
    if forced is not None and not 0 <= forced < len(listed):
        raise UserError(f"--force-video {forced}: there are candidates 0 to {len(listed) - 1}")
    verifier = ctx.config.verifier.create()
    verdicts: list[Verdict] = []
    for i, c in enumerate(listed):
        ctx.progress(f"judging candidate {i + 1} of {len(listed)}", i / len(listed))
        video = read_video(ctx.inputs["imagine"] / c["file"])
        verdicts.append(verifier.judge(ctx.task, view, video))
    best = max(range(len(verdicts)), key=lambda i: (verdicts[i].total, -verdicts[i].doubt))
    chosen = forced if forced is not None else best if verdicts[best].usable else None
    write_json(
        # Beside the manifest even when all are rejected: the reasons are what the user needs then.
        ctx.folder / VERDICTS,
        {"chosen": chosen, "forced": forced is not None, "usable_above": USABLE_ABOVE,
         "candidates": [
             {**c, **dataclasses.asdict(v), "total": v.total, "usable": v.usable}
             for c, v in zip(listed, verdicts, strict=True)
         ]},
    )  # fmt: skip
    if chosen is None:
        scores = ", ".join(f"{i}: {v.total:.1f}" for i, v in enumerate(verdicts))
        why = verdicts[best].reasons[0] if verdicts[best].reasons else "no reason given"
        for text in listed[best].get("intake", {}).get("warnings", ()):
            why += f"; of the file: {text}"
        raise RunFailed(
            f"every video was rejected (points {scores}; usable above {USABLE_ABOVE:g}). Best is "
            f"{best}: {why}. See {ctx.folder / VERDICTS}; take one anyway with "
            f"`lucibot resume {ctx.run.path} --force-video {best}`"
        )
    if forced is not None and not verdicts[forced].usable:
        points = verdicts[forced].total
        ctx.note(f"candidate {forced} was forced; its {points:.1f} points reject it")
