"""Candidate videos of the task being done (paper, section 3.2).

Without a budget all candidates of the video model are made, and `select` judges them. With one
(`--select.budget`), each is judged here as well, and while none is usable one more is made: the
rejection sampling of the paper. Both times the same judge keeps its verdicts in the same place, so
`select` finds what was judged here, and a resumed run goes on where it was with the same outcome.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2

from lucibot.core.errors import NoUsableVideo, UserError
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import read_video, sha256_file, write_video
from lucibot.pipeline import Context, version_of
from lucibot.providers.verifier.judging import Judging
from lucibot.providers.video.base import VideoModel, VideoRequest
from lucibot.providers.video.jobs import Candidate, Jobs
from lucibot.store.run import RunDirectory, StageFolder, write_json
from lucibot.store.verdicts import KEPT
from lucibot.task import Task
from lucibot.vision.clip import reading_of, study
from lucibot.vision.intake import take_in
from lucibot.vision.start import Refused

CANDIDATES = "candidates"
"""The folder, beside the stage's own ones, that keeps what came, as it came."""


def run(ctx: Context) -> None:
    """Writes `candidate_<i>.mp4`, how each is to be read (`candidate_<i>.npz`, see
    `lucibot.vision.clip`), what was seen of those that cannot serve (`refused_<i>.png`), and
    `candidates.json`, with what intake did to each."""
    model = ctx.config.video.create(ctx.services)
    first = first_request(ctx.task, ctx.inputs["scene"], ctx.inputs["prompt"], ctx.seed)
    count = ctx.config.video.candidates
    most = count if model.given else max(count, ctx.config.budget)
    jobs = Jobs(candidates_of(ctx.run), model, ctx.services, note=ctx.note, progress=ctx.progress)
    judging = None
    if ctx.config.judge is not None:
        judging = Judging(
            ctx.run.path / KEPT, ctx.config.judge, version=version_of("select"), task=ctx.task,
            view=first.view, scene=first.scene, services=ctx.services, note=ctx.note,
        )  # fmt: skip
    try:
        rows = _imagined(ctx, model, jobs, first, judging, count, most)
    finally:
        model.close()
    write_json(ctx.folder / "candidates.json", {"kind": model.kind, "candidates": rows})
    if not any(row["file"] for row in rows):
        reasons = "; ".join(dict.fromkeys(row["trouble"] for row in rows))
        raise (UserError if model.given else NoUsableVideo)(
            reasons if model.given else f"no video came of {len(rows)} candidates: {reasons}"
        )


def _imagined(
    ctx: Context,
    model: VideoModel,
    jobs: Jobs,
    first: VideoRequest,
    judging: Judging | None,
    count: int,
    most: int,
) -> list[dict]:
    """A row for each candidate: `count` of them, and then one after another until one is usable.

    Args:
        most: so many at most.
    """
    rows: list[dict] = []
    while len(rows) < most:
        more = range(len(rows), max(count, len(rows) + 1))
        made = jobs.make([dataclasses.replace(first, index=i) for i in more])
        new = [_take(ctx, model, first, candidate) for candidate in made]
        rows += new
        if judging is None or any([_usable(ctx, judging, row) for row in new]):
            break
    return rows


def first_request(task: Task, scene: Path, prompt: Path, seed: int) -> VideoRequest:
    """What is asked for as candidate 0.

    Args:
        scene, prompt: the folders of these stages.
    """
    return VideoRequest(
        task=task, view=SceneView.load(scene), scene=_digest(scene),
        first_frame=scene / "first_frame.png",
        first_frame_sha256=sha256_file(scene / "first_frame.png"), prompt=Prompt.load(prompt),
        seed=seed, index=0,
    )  # fmt: skip


def candidates_of(run: RunDirectory) -> Path:
    """Where a run keeps what came, as it came."""
    return run.path / "20_imagine" / CANDIDATES


def _take(ctx: Context, model: VideoModel, request: VideoRequest, made: Candidate) -> dict:
    """One candidate's row, and its video on the task camera's grid, if it can be brought there."""
    row = {
        "file": None, "sha256": None, "fingerprint": made.fingerprint, "raw": None,
        "raw_sha256": made.sha256, "intake": None, "clip": None, "refused": None,
        "trouble": made.trouble,
    }  # fmt: skip
    if made.raw is None:
        return row
    row["raw"] = made.raw.name
    out, valid_px = ctx.folder / f"candidate_{made.index}.mp4", None
    if model.fitted:
        shutil.copyfile(made.raw, out)
    else:
        try:
            video, report = take_in(
                made.raw, request.task, request.view, ctx.config.intake, progress=ctx.progress
            )
        except UserError as e:
            why = str(e).replace(str(made.raw), made.raw.name)
            ctx.note(f"candidate {made.index} cannot serve: {why}")
            if isinstance(e, Refused):
                row["refused"] = f"refused_{made.index}.png"
                cv2.imwrite(str(ctx.folder / row["refused"]), e.picture[..., ::-1])
            return {**row, "trouble": why}
        write_video(out, video, crf=14)
        row["intake"], valid_px = report.to_dict(), report.valid
        for text in (*report.done, *report.warnings):
            ctx.note(f"{report.file}: {text}")
    # As it will be read: encoding is part of it.
    reading, found = study(read_video(out), request.view, valid_px)
    reading.save(reading_of(out))
    row["clip"] = found.to_dict()
    for text in (*found.done, *found.warnings):
        ctx.note(f"candidate {made.index}: {text}")
    for path in sorted((made.raw.parent / "planted").glob("*")):
        (ctx.folder / "planted").mkdir(exist_ok=True)
        shutil.copyfile(path, ctx.folder / "planted" / f"{out.stem}{path.suffix}")
    return {**row, "file": out.name, "sha256": sha256_file(out)}


def _usable(ctx: Context, judging: Judging, row: dict) -> bool:
    if row["file"] is None:
        return False
    ctx.progress(f"judging {row['file']}")
    return judging.judge(ctx.folder / row["file"], row["sha256"]).usable


def _digest(folder: Path) -> str:
    return StageFolder(folder, folder.name).digest()
