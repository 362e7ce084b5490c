"""The report of a run, and `result.json`. The only stage that asks the success predicates."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import LuciBotError, UserError
from lucibot.core.geometry import matrix_np
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.objective.success import Metrics, judge
from lucibot.objective.success.judgement import Judgement
from lucibot.perception.affordance import grasps_at
from lucibot.perception.result import Perception
from lucibot.pipeline import STAGES, Context, Stopped
from lucibot.providers.verifier.base import read_opinion
from lucibot.report.art import PALETTE, with_box, with_grasps, with_outlines
from lucibot.report.blame import failed_at
from lucibot.report.data import (
    ArmSection,
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
from lucibot.sim.timer import PARTS
from lucibot.store.result import RESULT, Result, short_of_one
from lucibot.store.run import MANIFEST, REPORT, versions, write_json
from lucibot.store.verdicts import VERDICTS, chosen_video
from lucibot.task import Task
from lucibot.vision.clip import read_clip

CANDIDATES = "candidates.json"

MASK_FRAMES = 12
"""Frames of the chosen video shown with masks."""
POSE_FRAMES = 8
"""Frames shown with pose axes."""


def run(ctx: Context) -> None:
    """Writes `report.html` and `result.json`, here and at the top of the run directory."""
    state = FinalState.load(ctx.inputs["execute"] / "final_state.npz")
    armed = None
    try:
        metrics = judge(ctx.task, state)
        if "robot" in ctx.inputs:
            armed = _armed(ctx.task, ctx.inputs["robot"])
    except LuciBotError as e:
        unfinished(ctx, Stopped(stage="report", folder=ctx.folder, reason=str(e)))
        raise
    manifests = _manifests(ctx)
    result = _result(ctx, metrics, state, manifests, armed)
    write_json(ctx.folder / RESULT, dataclasses.asdict(result))
    ctx.progress("writing the report", 0.5)
    data = ReportData(
        **_frame(ctx, manifests), **_sections(ctx, ctx.inputs), success=metrics.success,
        headline={
            "score": f"{metrics.score:.2f}" if metrics.success else short_of_one(metrics.score),
            "loss": "diverged" if result.loss is None else f"{result.loss:.3f}",
            "rollouts": str(result.rollouts),
            "video": result.video["kind"], "seconds": f"{result.own_seconds:.0f}",
        },
        metrics=_table(metrics), failed_at=result.failed_at,
        robot=None if result.robot is None else _arm_section(ctx.inputs["robot"], result.robot, armed),
    )  # fmt: skip
    write_report(data, ctx.folder / REPORT)
    for name in (REPORT, RESULT):
        part = ctx.run.path / f".{name}.part"
        shutil.copyfile(ctx.folder / name, part)
        part.replace(ctx.run.path / name)


def unfinished(ctx: Context, stopped: Stopped) -> None:
    """Writes `report.html` at the top of a run that ended before its report: what there is, and
    what is missing."""
    ctx.progress("writing what there is into the report")
    folders = dict(ctx.inputs)
    told = {"imagine": CANDIDATES, "select": VERDICTS}.get(stopped.stage)
    if told is not None and (stopped.folder / told).is_file():
        # No candidate can serve, or all were rejected: what was said of each is what tells why.
        folders[stopped.stage] = stopped.folder
    data = ReportData(
        **_frame(ctx, _manifests(ctx)), **_sections(ctx, folders), stopped_at=stopped.stage,
        stopped_why=stopped.reason,
        missing=tuple(
            s.name for s in STAGES
            if s.name not in (*ctx.inputs, "report") and (s.name != "robot" or _wants_arm(ctx))
        ),
    )  # fmt: skip
    write_report(data, ctx.run.path / REPORT)


def _wants_arm(ctx: Context) -> bool:
    return ctx.run.record["config"].get("robot") is not None


def _armed(task: Task, folder: Path) -> Metrics | None:
    """How the task's predicates see what the arm did; None where it did nothing."""
    path = folder / "final_state.npz"
    return judge(task, FinalState.load(path)) if path.is_file() else None


def _robot(folder: Path, metrics: Metrics | None) -> dict:
    """`Result.robot`"""
    told = _json(folder / "robot.json")
    done = metrics is not None and told["failed"] is None
    judged = {"success": done and metrics.success, "score": 0.0, "missed": [], "metrics": {}}
    if metrics is not None:
        judged |= {
            "score": metrics.score if done else 0.0, "metrics": metrics.metrics,
            "missed": [_missed(j) for j in metrics.judgements if not j.ok],
        }  # fmt: skip
    return {"arm": told["arm"]} | judged | {n: v for n, v in told.items() if n != "arm"}


def _arm_section(folder: Path, robot: dict, metrics: Metrics | None) -> ArmSection:
    facts = {}
    if t := robot["tracking"]:
        facts["off its trajectory"] = (
            f"{t['mean_mm']:.1f} mm and {t['mean_deg']:.1f} degrees in the mean, {t['most_mm']:.1f} mm "
            f"and {t['most_deg']:.1f} degrees at most"
        )
    for hold, slower in zip(robot["holds"], robot.get("slower", ()), strict=False):
        x, y = np.array(hold["base"])[:2, 3]
        facts[f"holds {hold['actuator']}"] = (
            f"{1000 * hold['width_m']:.0f} mm between the fingers, {slower:.1f} times as long as without "
            f"an arm, from ({x:.2f}, {y:.2f}) m; {hold['tried']['reaching']} of "
            f"{hold['tried']['grasps']} grasps reach all of the way"
        )
    film = folder / "film.mp4"
    return ArmSection(
        arm=robot["arm"], success=robot["success"], why=robot["why"],
        film=film if film.is_file() else None,
        metrics=() if metrics is None else _table(metrics), facts=facts,
    )  # fmt: skip


def _table(metrics: Metrics) -> tuple[Metric, ...]:
    return tuple(
        Metric(name=j.name, value=_digits(j.value, j.threshold),
               wanted=_digits(j.threshold, j.value), passed=j.ok)
        for j in metrics.judgements
    )  # fmt: skip


def _manifests(ctx: Context) -> dict[str, dict]:
    return {n: json.loads((p / MANIFEST).read_text()) for n, p in ctx.inputs.items()}


def _result(
    ctx: Context, metrics: Metrics, state: FinalState, manifests: dict, armed: Metrics | None
) -> Result:
    search = _json(ctx.inputs["optimize"] / "search.json")
    execute = _json(ctx.inputs["execute"] / "execute.json")
    verdicts = _json(ctx.inputs["select"] / VERDICTS)
    kind = _json(ctx.inputs["imagine"] / CANDIDATES)["kind"]
    chosen = verdicts["candidates"][verdicts["chosen"]]
    seconds = {n: m["seconds"] for n, m in manifests.items()}
    taken_over = {n: m["taken_over_from"] for n, m in manifests.items() if "taken_over_from" in m}
    theirs = sum(seconds[n] for n in taken_over)
    robot = _robot(ctx.inputs["robot"], armed) if "robot" in ctx.inputs else None
    blamed = failed_at(
        metrics.success, usable=chosen["usable"], terms=execute["terms"], robot=robot
    )  # fmt: skip
    return Result(
        task=ctx.task.name, task_digest=ctx.task.digest, instruction=ctx.task.instruction,
        seed=ctx.seed, failed_at=blamed, success=metrics.success, score=metrics.score,
        missed=[_missed(j) for j in metrics.judgements if not j.ok],
        metrics=metrics.metrics | _off_the_video(ctx, chosen["file"], state),
        loss=execute["loss"], terms=execute["terms"], rollouts=search["rollouts"],
        failed_rollouts=search["failed"], same_loss_when_replayed=execute["same_loss"],
        seconds=seconds, taken_over=taken_over,
        own_seconds=round(sum(seconds.values()) - theirs, 3), taken_over_seconds=round(theirs, 3),
        wall_seconds=round(time.perf_counter() - ctx.began, 3), cost_usd=ctx.services.ledger.spent_usd(),
        video={
            "kind": kind, "candidate": verdicts["chosen"], "file": chosen["file"],
            "points": chosen["total"], "sha256": chosen["sha256"],
            "raw_sha256": chosen["raw_sha256"],
        },
        versions=versions(), robot=robot, machine=ctx.run.record["machine"],
    )  # fmt: skip


def _missed(judgement: Judgement) -> dict:
    """What a predicate that does not hold found, with the metrics that are not its value."""
    j = judgement
    beside = {n: v for n, v in j.metrics.items() if v != j.value}
    return {"predicate": j.name, "value": j.value, "wanted": j.threshold, "metrics": beside}


def _digits(value: float, other: float) -> str:
    """A number with digits enough to tell it from another."""
    return next((a for d in range(4, 17) if (a := f"{value:.{d}g}") != f"{other:.{d}g}"),
                f"{value:.4g}")  # fmt: skip


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def _off_the_video(ctx: Context, video: str, state: FinalState) -> dict[str, float]:
    """How far each joint ended from where the video has it [deg or m], where that is known: a
    storyboard keeps what it drew. A measurement beside the success, which rests on the simulator's
    state alone; without what was drawn, or where that is damaged, it is left out."""
    planted = ctx.inputs["imagine"] / "planted" / f"{Path(video).stem}.npz"
    if not planted.is_file():
        return {}
    try:
        with read_npz(planted, names=("poses",)) as told:
            drawn = np.asarray(told["poses"][-1], float)
            if drawn.shape != (len(ctx.task.objects), 6) or not np.isfinite(drawn).all():
                raise ValueError(f"poses {drawn.shape}")
    except UserError as e:
        ctx.note(f"{e}: how far joints ended from the video is not known")
        return {}
    out = {}
    for i, o in enumerate(ctx.task.objects):
        if (joint := o.articulation) is not None:
            off = abs(float(state.bodies[o.name].joint) - float(joint.values(drawn[i])))
            out[f"{o.name}.off_video_{joint.unit}"] = joint.shown(off)
    return out


def _frame(ctx: Context, manifests: dict[str, dict]) -> dict:
    """What stands around the stages' sections."""
    record = ctx.run.record
    return {
        "title": ctx.task.spec.title,
        "instruction": ctx.task.instruction,
        "timings": tuple(
            Timing(stage=n, seconds=m["seconds"], taken_over="taken_over_from" in m)
            for n, m in manifests.items()
        ),
        "paid": tuple(ctx.services.ledger.paid()), "max_usd": ctx.services.config.max_usd,
        "notes": tuple(f"{n}: {text}" for n, m in manifests.items() for text in m["notes"]),
        "provenance": {
            "run": ctx.run.path.name, "seed": str(ctx.seed), "task digest": ctx.task.digest,
            **{k: str(v) for k, v in versions().items()},
            **{k: str(v) for k, v in record["machine"].items()},
        },
    }  # fmt: skip


def _sections(ctx: Context, folders: dict[str, Path]) -> dict:
    """What each stage that has run gives to show, from its folder."""
    found = {}
    for name, section in SECTIONS.items():
        if name in folders:
            found |= section(ctx, folders)
    return found


def _scene(ctx: Context, folders: dict[str, Path]) -> dict:
    view = SceneView.load(folders["scene"])
    return {"objects": view.names, "camera": view.camera, "first_frame": view.first_frame}


def _prompt(ctx: Context, folders: dict[str, Path]) -> dict:
    return {"prompt": Prompt.load(folders["prompt"])}


def _imagine(ctx: Context, folders: dict[str, Path]) -> dict:
    listed = _json(folders["imagine"] / CANDIDATES)["candidates"]
    rows = [
        CandidateRow(
            name=f"candidate {i}", video=_file(folders, c),
            reasons=(c["trouble"],) if c["trouble"] else (), pictures=_pictures(folders, c),
        )
        for i, c in enumerate(listed)
    ]  # fmt: skip
    return {"candidates": tuple(rows)}


def _pictures(folders: dict[str, Path], candidate: dict) -> tuple[tuple[np.ndarray, str], ...]:
    """What shows why a candidate cannot serve, or what it lost points for."""
    out = []
    refused = folders["imagine"] / candidate["refused"] if candidate.get("refused") else None
    if refused is not None and refused.is_file():
        view, seen = SceneView.load(folders["scene"]), cv2.imread(str(refused))[..., ::-1]
        for image, words in (
            (view.first_frame, "What was expected: the scene, with its objects outlined."),
            (seen, "What was seen, with the same outlines."),
        ):
            out.append((with_outlines(np.ascontiguousarray(image), view.labels), words))
    told = candidate.get("shown", ())
    if told:
        frames = read_clip(folders["imagine"] / candidate["file"]).frames
        for s in told:
            image, words = frames[s["frame"]], f"Frame {s['frame']}: {s['words']}."
            if s["over"] is not None:
                image = cv2.addWeighted(frames[s["over"]], 0.5, image, 0.5, 0)
                words = f"Frame {s['frame']} over frame {s['over']}: {s['words']}."
            out.append((image if s["box"] is None else with_box(image, s["box"]), words))
    return tuple(out)


def _file(folders: dict[str, Path], candidate: dict) -> Path | None:
    return folders["imagine"] / candidate["file"] if candidate["file"] else None


def _select(ctx: Context, folders: dict[str, Path]) -> dict:
    verdicts = _json(folders["select"] / VERDICTS)
    rows = tuple(
        CandidateRow(
            name=f"candidate {i}", video=_file(folders, c), match=c["match"],
            motion=c["motion"], goal=c["goal"], total=c["total"], usable=c["usable"],
            new_object=c["new_object"], chosen=i == verdicts["chosen"], reasons=tuple(c["reasons"]),
            pictures=_pictures(folders, c), by=c.get("by", ""), seen=str(c["evidence"].get("seen", "")),
            beside=read_opinion(c["beside"]) if c.get("beside") else None,
        )
        for i, c in enumerate(verdicts["candidates"])
    )  # fmt: skip
    found = {"candidates": rows, "usable_above": verdicts["usable_above"]}
    if verdicts["chosen"] is not None:
        found["chosen_video"] = chosen_video(folders["imagine"], folders["select"])
    return found


def _perceive(ctx: Context, folders: dict[str, Path]) -> dict:
    perception = Perception.load(folders["perceive"])
    video = read_clip(chosen_video(folders["imagine"], folders["select"]))
    names = SceneView.load(folders["scene"]).names
    sup, answers = perception.supervision, perception.answers
    keyframes = tuple(int(k) for k in sup.keyframes)
    return {
        "masks": _mask_frames(perception, video, names),
        "poses": _pose_frames(perception, video, names),
        "keyframes": keyframes, "fps": video.fps,
        "keyframe_images": _keyframe_pictures(ctx.task, perception, video),
        "answers": answers.reasons, "held": sup.held, "actuators": sup.actuators,
        "contact_pairs": answers.contact_pairs, "contact": answers.contact,
        "first_contact": answers.first_contact, "answered_by": answers.by, "beside": answers.beside,
        "disputes": tuple(answers.disputes(video.fps)),
    }  # fmt: skip


def _optimize(ctx: Context, folders: dict[str, Path]) -> dict:
    search = _json(folders["optimize"] / "search.json")
    return {
        "rollouts": Rollouts.load(folders["optimize"]),
        "search_seconds": {p: s for p in PARTS if (s := search["seconds"].get(p)) is not None},
    }


def _execute(ctx: Context, folders: dict[str, Path]) -> dict:
    video = read_clip(chosen_video(folders["imagine"], folders["select"]))
    keyframes = [int(k) for k in Perception.load(folders["perceive"]).supervision.keyframes]
    return {
        "comparisons": tuple(
            Comparison(
                keyframe=k, frame=frame, video=video.frames[frame],
                simulation=cv2.imread(str(folders["execute"] / f"keyframe_{k:02d}.png"))[..., ::-1],
            )
            for k, frame in enumerate(keyframes)
        ),
        "film": folders["execute"] / "film.mp4",
    }  # fmt: skip


SECTIONS = {
    "scene": _scene, "prompt": _prompt, "imagine": _imagine, "select": _select, "perceive": _perceive,
    "optimize": _optimize, "execute": _execute,
}  # fmt: skip
"""By stage: what it adds to the report, from the folders of those that have run."""


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


def _keyframe_pictures(task: Task, perception: Perception, video: Video) -> tuple[np.ndarray, ...]:
    """With what hands hold of each actuator, in its colour."""
    sup, out = perception.supervision, []
    for k, t in enumerate(sup.keyframes):
        held = [
            (*grasp, PALETTE[(task.label(name) - 1) % len(PALETTE)])
            for name, grasp in grasps_at(task, sup, k).items()
        ]
        out.append(with_grasps(video.frames[t], held, sup.camera))
    return tuple(out)


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
