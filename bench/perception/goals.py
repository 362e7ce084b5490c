"""Goal frames that a person has labelled, and what the verifier says of them.

Two kinds: drawn by the second artist, where the label is known by construction, and frames of given
clips, labelled by eye in `goal_frames.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.verifier import PixelVerifier, goals
from lucibot.stages.scene import build_view
from lucibot.task import Task, load_task
from lucibot.vision.clip import study
from lucibot.vision.intake import take_in
from lucibot.vision.regions import classify

from .artist import Artist, Finish
from .paths import FPS, Plan

STILL, ON_ITS_WAY = 8, 14
"""Frames in which nothing moves, at both ends, and of the way between."""
NESTED_M, HIGH_M = 0.0394, 0.078
"""How high a cup stands in another: of its own size, and one that is a fifth too large."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    relation: str
    holds: bool
    """As a person says."""


def drawn_cases(seed: int) -> Iterator[tuple[Case, float]]:
    """Cups in, on, beside, before and behind each other; and how far the verifier says they are in."""
    task = load_task("stack_cups")
    red, yellow = (np.asarray(task.object(n).position_m, float) for n in ("red_cup", "yellow_cup"))
    ahead = np.array([*task.camera.T_world_cam[:2, 2], 0.0])
    ahead /= np.linalg.norm(ahead)
    at = red * [1, 1, 0]

    def up(by_m: float, aside_m: float = 0.0) -> np.ndarray:
        return np.array([at[0] + aside_m, at[1], by_m])

    cases = (
        ("nested", up(NESTED_M), 1.0, True),
        ("nested, a little beside the middle", up(NESTED_M + 0.004, 0.004), 1.0, True),
        ("a fifth too large, high in the other", up(HIGH_M), 1.2, True),
        ("a tenth too large", up(0.052), 1.1, True),
        ("a tenth too small, deep in the other", up(0.026), 0.9, True),
        ("at its first place", yellow, 1.0, False),
        ("held above the other", up(0.20), 1.0, False),
        ("before the other", at - 0.10 * ahead, 1.0, False),
        ("behind the other", at + 0.10 * ahead, 1.0, False),
        ("behind the other, half hidden", at + 0.085 * ahead, 1.2, False),
        ("beside the other", up(0.0, 0.105), 1.0, False),
    )  # fmt: skip
    for name, end, size, holds in cases:
        artist = Artist(task, seed, _carried(task, yellow, end, size))
        view = build_view(task, artist)
        finish = Finish(seed, len(artist.plan))
        frames = np.stack([finish(artist.frame(t).rgb, t) for t in range(len(artist.plan))])
        video = Video(frames=frames, fps=float(FPS))
        case = Case(name=name, relation="inside", holds=holds)
        yield case, told(task, view, video, "inside", len(video) - 1)


def _carried(task: Task, start: np.ndarray, end: np.ndarray, size: float) -> Plan:
    """The yellow cup goes over to `end`, and changes its size on the way."""
    share = np.clip((np.arange(2 * STILL + ON_ITS_WAY) - STILL) / ON_ITS_WAY, 0, 1)[:, None]
    frames = len(share)
    poses = {o.name: np.tile(o.T_world_object, (frames, 1, 1)) for o in task.objects}
    way = start + share * (end - start)
    way[:, 2] += 0.16 * np.sin(np.pi * share[:, 0])
    poses["yellow_cup"][:, :3, 3] = way
    ones = np.ones(frames)
    return Plan(
        fps=FPS, poses=poses, clouds={}, hands=(), goal=None,
        scale={"red_cup": ones, "yellow_cup": 1 + (size - 1) * share[:, 0]},
        pivot={n: p[:, :3, 3] for n, p in poses.items()},
    )  # fmt: skip


def given_cases(videos: Path, scenes: Path) -> Iterator[tuple[Case, float]]:
    """The frames of `goal_frames.toml`, of clips in `videos`."""
    told_by_eye = tomllib.loads((Path(__file__).parent / "goal_frames.toml").read_text())["frame"]
    for clip in dict.fromkeys(f["clip"] for f in told_by_eye):
        path = videos / clip
        if not path.is_file():
            print(f"{path}: not there")
            continue
        labelled = [f for f in told_by_eye if f["clip"] == clip]
        task = load_task(labelled[0]["task"])
        folder = scenes / task.name
        if not (folder / "view.json").is_file():
            from lucibot.providers.renderer import MitsubaRenderer

            build_view(task, MitsubaRenderer().create()).save(folder)
        view = SceneView.load(folder)
        video, taken = take_in(path, task, view)
        video = study(video, view, taken.valid)[0].applied(video)
        for f in labelled:
            case = Case(name=f"{clip} {f['at_s']:g} s", relation=f["relation"], holds=f["holds"])
            frame = min(len(video) - 1, round((f["at_s"] - taken.start_s) * video.fps))
            yield case, told(task, view, video, f["relation"], frame)


def told(task: Task, view: SceneView, video: Video, relation: str, frame: int) -> float:
    """How far the task's relation holds in a frame, in [0, 1]; NaN where that cannot be seen."""
    c = PixelVerifier()
    unseen = None if video.unseen is None else video.unseen[: frame + 1]
    upto = Video(frames=video.frames[: frame + 1], fps=video.fps, unseen=unseen)
    regions = classify(view, upto, width=c.width, step=max(1, round(video.fps / c.samples_per_s)))
    shares = [
        goals.measure(task, view, upto, regions, kind, r)[-3:]
        for kind, r in goals.relations(task) if kind == relation
    ]  # fmt: skip
    seen = np.concatenate(shares)
    return float(np.nanmean(seen)) if np.isfinite(seen).any() else float("nan")


def goal_table(cases: list[tuple[Case, float]]) -> str:
    """Markdown: a line a case, and how many are told rightly."""
    lines = ["| goal frame | relation | a person | measured |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {c.name} | {c.relation} | {'yes' if c.holds else 'no'} | {value:.2f} |"
        for c, value in cases
    ]
    of = {yes: [v for c, v in cases if c.holds == yes] for yes in (True, False)}
    found, false = sum(v >= 0.5 for v in of[True]), sum(v >= 0.5 for v in of[False])
    lines += ["", f"{found} of {len(of[True])} that hold are found, {false} of {len(of[False])} that do "
              "not are taken to."]  # fmt: skip
    return "\n".join(lines)
