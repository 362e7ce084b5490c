"""The rejection of bad videos (paper, section 3.2): each is judged, then one is chosen."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from lucibot.core.errors import NoUsableVideo, UserError, resume_hint
from lucibot.core.scene_view import SceneView
from lucibot.pipeline import Context, version_of
from lucibot.providers.hand import MediapipeHand, OutlineHand
from lucibot.providers.verifier import PixelVerifier, VerifierConfig
from lucibot.providers.verifier.base import NO_GOAL, USABLE_ABOVE, Opinion, Verdict, rejected
from lucibot.providers.verifier.judging import Judging
from lucibot.store.run import StageFolder, write_json
from lucibot.store.verdicts import KEPT, VERDICTS
from lucibot.vision.threads import one_thread_each

AT_ONCE = 2
"""Videos that the embedded judge looks at side by side."""


def run(ctx: Context) -> None:
    """Writes `verdicts.json`: every candidate's points and reasons, and which one was chosen."""
    rows = json.loads((ctx.inputs["imagine"] / "candidates.json").read_text())["candidates"]
    forced = ctx.config.force_video
    if forced is not None and not 0 <= forced < len(rows):
        raise UserError(f"--force-video {forced}: there are candidates 0 to {len(rows) - 1}")
    if forced is not None and rows[forced]["file"] is None:
        raise UserError(f"--force-video {forced}: it has no video ({rows[forced]['trouble']})")
    verdicts = _judged(ctx, rows)
    measured = [
        v for row, v in zip(rows, verdicts, strict=True) if row["file"] and v.by == "pixels"
    ]
    if measured and not ctx.task.spec.goal:
        ctx.note(NO_GOAL.format(folder=ctx.task.folder))
    for i, v in enumerate(verdicts):
        if v.disputed:
            ctx.note(f"the judges disagree about candidate {i}: {_points(v)}; {_points(v.beside)}")
    seen = [i for i, row in enumerate(rows) if row["file"] is not None]
    best = max(seen, key=lambda i: (verdicts[i].total, -verdicts[i].doubt))
    chosen = forced if forced is not None else best if verdicts[best].usable else None
    write_json(
        # Beside the manifest even when all are rejected: the reasons are what the user needs then.
        ctx.folder / VERDICTS,
        {"chosen": chosen, "forced": forced is not None, "usable_above": USABLE_ABOVE,
         "candidates": [
             {**row, **dataclasses.asdict(v), "total": v.total, "usable": v.usable}
             for row, v in zip(rows, verdicts, strict=True)
         ]},
    )  # fmt: skip
    if chosen is None:
        why = ". ".join(
            f"{i} ({v.total:.1f}): {_why(row, v)}"
            for i, (row, v) in enumerate(zip(rows, verdicts, strict=True))
        )
        raise NoUsableVideo(
            f"every video was rejected (usable above {USABLE_ABOVE:g} points). {why}. See "
            f"{ctx.folder / VERDICTS}; take one anyway with "
            f"{resume_hint(ctx.run.path, f'--force-video {best}')}"
        )
    if forced is not None and not verdicts[forced].usable:
        points = verdicts[forced].total
        ctx.note(f"candidate {forced} was forced; its {points:.1f} points reject it")


def _points(opinion: Opinion) -> str:
    said = "usable" if opinion.usable else "rejected"
    return f"{opinion.by} gives {opinion.total:.1f} points ({said})"


def _why(row: dict, verdict: Verdict) -> str:
    said = [verdict.reasons[0] if verdict.reasons else "no reason given"]
    warnings = [text for part in ("intake", "clip") if row[part] for text in row[part]["warnings"]]
    return "; ".join([*said, *(f"of the file: {text}" for text in warnings)])


def _judged(ctx: Context, rows: list[dict]) -> list[Verdict]:
    scene = ctx.inputs["scene"]
    judging = Judging(
        ctx.run.path / KEPT, ctx.config.verifier, version=version_of("select"), task=ctx.task,
        view=SceneView.load(scene), scene=StageFolder(scene, scene.name).digest(),
        services=ctx.services, note=ctx.note,
    )  # fmt: skip
    begun = count(1)

    def judged(row: dict) -> Verdict:
        k = next(begun)
        ctx.progress(f"judging candidate {k} of {len(rows)}", (k - 1) / len(rows))
        if row["file"] is None:
            return rejected(row["trouble"])
        return judging.judge(ctx.inputs["imagine"] / row["file"], row["sha256"])

    if not _side_by_side(ctx.config.verifier):
        return [judged(row) for row in rows]
    with one_thread_each(), ThreadPoolExecutor(AT_ONCE, "judge") as pool:
        return list(pool.map(judged, rows))


def _side_by_side(verifier: VerifierConfig) -> bool:
    """Whether several videos can be judged at once: others than the embedded judge are asked as far as
    a cap allows, and other hand models than its own may fill a GPU."""
    return isinstance(verifier, PixelVerifier) and isinstance(
        verifier.hand, OutlineHand | MediapipeHand
    )
