"""The report of a run, and `result.json`. The only stage that asks the success predicates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.geometry import matrix_np
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, read_video
from lucibot.objective.success import Metrics, judge
from lucibot.objective.weights import TERMS
from lucibot.perception.result import Perception
from lucibot.pipeline import STAGES, Context
from lucibot.report.data import (
    CandidateRow,
    Comparison,
    MaskFrame,
    Metric,
    PoseFrame,
    ReportData,
    Rollouts,
    Timing,
)
from lucibot.report.page import write_report
from lucibot.sim.state import FinalState
from lucibot.sim.stopwatch import PARTS
from lucibot.store.run import MANIFEST, write_json
from lucibot.store.verdicts import VERDICTS

MASK_FRAMES = 12
"""Frames of the chosen video shown with masks."""
POSE_FRAMES = 8
"""Frames shown with pose axes."""


def run(ctx: Context) -> None:
    """Writes `report.html` and `result.json`, here and at the top of the run directory."""
    state = FinalState.load(ctx.inputs["execute"] / "final_state.npz")
    metrics = judge(ctx.task, state)
    read = {
        "verdicts": ctx.inputs["select"] / VERDICTS, "search": ctx.inputs["optimize"] / "search.json",
        "execute": ctx.inputs["execute"] / "execute.json",
        "candidates": ctx.inputs["imagine"] / "candidates.json",
    }  # fmt: skip
    found = {n: json.loads(p.read_text()) for n, p in read.items()}
    manifests = {n: json.loads((p / MANIFEST).read_text()) for n, p in ctx.inputs.items()}
    chosen = found["verdicts"]["candidates"][found["verdicts"]["chosen"]]
    result = {
        "task": ctx.task.name,
        "success": metrics.success,
        "score": metrics.score,
        "metrics": metrics.metrics | _off_the_video(ctx, chosen["file"], state),
        "loss": found["execute"]["loss"],
        "terms": found["execute"]["terms"],
        "rollouts": found["search"]["rollouts"],
        "failed_rollouts": found["search"]["failed"],
        "same_loss_when_replayed": found["execute"]["same_loss"],
        "seconds": {n: m["seconds"] for n, m in manifests.items()},
        "video": {"kind": found["candidates"]["kind"], "file": chosen["file"],
                  "sha256": chosen["sha256"], "points": chosen["total"]},
        "seed": ctx.seed,
    }  # fmt: skip
    write_json(ctx.folder / "result.json", result)
    data = _data(ctx, found, manifests, metrics, result)
    ctx.progress("writing the report", 0.5)
    write_report(data, ctx.folder / "report.html")
    for name in ("report.html", "result.json"):
        part = ctx.run.path / f".{name}.part"
        shutil.copyfile(ctx.folder / name, part)
        part.replace(ctx.run.path / name)


def _off_the_video(ctx: Context, video: str, state: FinalState) -> dict[str, float]:
    """How far each joint ended from where the video has it [deg or m], where that is known: a
    storyboard keeps what it drew. A measurement beside the success, which rests on the simulator's
    state alone; without what was drawn it is left out."""
    planted = ctx.inputs["imagine"] / "planted" / f"{Path(video).stem}.npz"
    if not planted.is_file():
        return {}
    with np.load(planted) as z:
        drawn = z["poses"][-1]
    out = {}
    for i, o in enumerate(ctx.task.objects):
        if (joint := o.articulation) is not None:
            off = abs(float(state.bodies[o.name].joint) - float(joint.values(drawn[i])))
            out[f"{o.name}.off_video_{joint.unit}"] = joint.shown(off)
    return out


def _data(ctx: Context, found, manifests, metrics: Metrics, result) -> ReportData:
    view = SceneView.load(ctx.inputs["scene"])
    perception = Perception.load(ctx.inputs["perceive"])
    verdicts = found["verdicts"]
    chosen_path = ctx.inputs["imagine"] / verdicts["candidates"][verdicts["chosen"]]["file"]
    video = read_video(chosen_path)
    sup = perception.supervision
    keyframes = tuple(int(k) for k in sup.keyframes)
    frame_contact = perception.answers.contact[list(keyframes)]
    return ReportData(
        title=ctx.task.spec.title,
        instruction=ctx.task.instruction,
        success=metrics.success,
        headline={
            "score": f"{metrics.score:.2f}", "loss": f"{result['loss']:.3f}",
            "rollouts": str(result["rollouts"]), "video": result["video"]["kind"],
            "seconds": f"{sum(result['seconds'].values()):.0f}",
        },
        objects=view.names,
        camera=view.camera,
        first_frame=view.first_frame,
        candidates=tuple(
            CandidateRow(
                name=f"candidate {i}", video=ctx.inputs["imagine"] / c["file"], match=c["match"],
                motion=c["motion"], goal=c["goal"], total=c["total"], usable=c["usable"],
                new_object=c["new_object"], chosen=i == verdicts["chosen"],
                reasons=tuple(c["reasons"]),
            )
            for i, c in enumerate(verdicts["candidates"])
        ),
        usable_above=verdicts["usable_above"],
        masks=_mask_frames(perception, video, view.names),
        poses=_pose_frames(perception, video, view.names),
        keyframes=keyframes,
        fps=video.fps,
        keyframe_images=tuple(video.frames[k] for k in keyframes),
        answers=perception.answers.reasons,
        held=sup.held,
        actuators=sup.actuators,
        contact_pairs=perception.answers.contact_pairs,
        contact=frame_contact,
        rollouts=_rollouts(ctx, found["search"]["weights"]),
        comparisons=_comparisons(ctx, keyframes, video),
        film=ctx.inputs["execute"] / "film.mp4",
        chosen_video=chosen_path,
        metrics=tuple(
            Metric(name=j.name, value=f"{j.value:.4g}", wanted=f"{j.threshold:.4g}", passed=j.ok)
            for j in metrics.judgements
        ),
        timings=tuple(
            Timing(stage=s.name, seconds=manifests[s.name]["seconds"])
            for s in STAGES if s.name in manifests
        ),
        search_seconds={p: s for p in PARTS if (s := found["search"]["seconds"].get(p)) is not None},
        notes=tuple(f"{n}: {text}" for n, m in manifests.items() for text in m["notes"]),
        provenance={
            "run": ctx.run.path.name, "seed": str(ctx.seed),
            "video sha256": result["video"]["sha256"],
            **{k: str(v) for k, v in ctx.run.record["versions"].items()},
            **{k: str(v) for k, v in ctx.run.record["machine"].items()},
        },
    )  # fmt: skip


def _mask_frames(perception: Perception, video: Video, names) -> tuple[MaskFrame, ...]:
    tracks = perception.tracks
    shown = np.unique(np.linspace(0, len(video) - 1, MASK_FRAMES).round().astype(int))
    return tuple(
        MaskFrame(
            index=int(t), image=video.frames[t], masks=tracks.masks[t], hand=tracks.hand[t],
            lost=tuple(n for i, n in enumerate(names) if tracks.lost[t, i]),
        )
        for t in shown
    )  # fmt: skip


def _pose_frames(perception: Perception, video: Video, names) -> tuple[PoseFrame, ...]:
    first, last = perception.answers.first_contact, perception.answers.goal
    shown = np.unique(np.linspace(first, last, POSE_FRAMES).round().astype(int))
    frames = []
    for t in shown:
        known = [i for i in range(len(names)) if np.isfinite(perception.poses[t, i]).all()]
        frames.append(
            PoseFrame(
                index=int(t), image=video.frames[t],
                poses={names[i]: matrix_np(perception.poses[t, i]) for i in known},
                confidence={names[i]: float(perception.confidence[t, i]) for i in known},
            )
        )  # fmt: skip
    return tuple(frames)


def _rollouts(ctx: Context, weights: dict[str, float]) -> Rollouts:
    with np.load(ctx.inputs["optimize"] / "history.npz") as z:
        G, P = z["loss"].shape
        return Rollouts(
            generation=np.repeat(np.arange(G), P), loss=z["loss"].reshape(-1),
            terms={n: z[n].reshape(-1) for n in TERMS}, failed=z["failed"].reshape(-1),
            weights=weights,
        )  # fmt: skip


def _comparisons(ctx: Context, keyframes, video: Video) -> tuple[Comparison, ...]:
    rows = []
    for k, frame in enumerate(keyframes):
        picture = cv2.imread(str(ctx.inputs["execute"] / f"keyframe_{k:02d}.png"))
        rows.append(
            Comparison(
                keyframe=k, frame=frame, video=video.frames[frame], simulation=picture[..., ::-1]
            )
        )
    return tuple(rows)
