"""Candidate videos of the task being done (paper, section 3.2)."""

from __future__ import annotations

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.core.video import sha256_file
from lucibot.pipeline import Context
from lucibot.store.run import write_json


def run(ctx: Context) -> None:
    """Writes `candidate_<i>.mp4` and `candidates.json`."""
    view = SceneView.load(ctx.inputs["scene"])
    model = ctx.config.create()
    paths = model.imagine(ctx.task, view, seed=ctx.seed, out_dir=ctx.folder, progress=ctx.progress)
    if not paths:
        raise RunFailed(f"the video model {model.kind!r} returned no video")
    write_json(
        ctx.folder / "candidates.json",
        {"kind": model.kind,
         "candidates": [{"file": p.name, "sha256": sha256_file(p)} for p in paths]},
    )  # fmt: skip
