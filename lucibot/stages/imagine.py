"""Candidate videos of the task being done (paper, section 3.2)."""

from __future__ import annotations

import json

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.core.video import sha256_file
from lucibot.pipeline import Context
from lucibot.store.run import write_json


def run(ctx: Context) -> None:
    """Writes `candidate_<i>.mp4` and `candidates.json`, with what intake did to a file."""
    view = SceneView.load(ctx.inputs["scene"])
    model = ctx.config.create()
    paths = model.imagine(ctx.task, view, seed=ctx.seed, out_dir=ctx.folder, progress=ctx.progress)
    if not paths:
        raise RunFailed(f"the video model {model.kind!r} returned no video")
    candidates = []
    for p in paths:
        candidates.append({"file": p.name, "sha256": sha256_file(p)})
        said = p.with_suffix(".intake.json")
        if said.is_file():
            report = json.loads(said.read_text())
            candidates[-1]["intake"] = report
            for text in report["done"] + report["warnings"]:
                ctx.note(f"{report['file']}: {text}")
    write_json(ctx.folder / "candidates.json", {"kind": model.kind, "candidates": candidates})
