"""Of which imagined videos selection says that they can be trusted: precision, recall and F1.

    lucibot bench selection [--tasks NAME,...] [--clips N] [--runs DIR] [--cache DIR] [--label NAME]
                            [--table] [--select.verifier KIND ...] [--services.vlm... VALUE]

The labelled set is drawn by the built-in storyboard: of each task's N videos every other one carries a
planted fault, of every kind by turns, and the hands of both halves take turns over the drawn one, ten
tones of the Monk scale, three gloves and two grippers. Clips are kept, so is each verdict; a
measurement that was stopped goes on where it was. Whatever judges in `lucibot run` can be measured:
its flags are the same. False verdicts are listed with their reasons, and a picture of each is kept.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lucibot.benchmark.hands import TONES, recoloured
from lucibot.config import PRESETS, RunConfig
from lucibot.core.progress import silent
from lucibot.core.prompt import Prompt
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, read_video, sha256_file, write_video
from lucibot.options import with_settings
from lucibot.pipeline import run_stages
from lucibot.preflight import settled_run
from lucibot.providers.verifier.base import Verdict
from lucibot.providers.video.base import Job, VideoRequest
from lucibot.providers.video.storyboard import StoryboardVideo, read_planted
from lucibot.record import start_run
from lucibot.services import Services
from lucibot.settings import Parser
from lucibot.store.finished import stage_folder
from lucibot.store.run import RunDirectory
from lucibot.task import Task, load_task, task_names
from lucibot.vision.clip import Reading, reading_of, study

from .scores import table

SEED = 300
"""Of the labelled set; no constant of the eyes was chosen on it."""
HANDS = ("", *TONES)
STRIP = 6
"""Frames in a picture of a false verdict."""


def main(argv: list[str]) -> int:
    options, config = parse(argv)
    cache, label = options.get("cache", Path("runs/selection")), options.get("label", "now")
    folder = cache / "results" / label
    folder.mkdir(parents=True, exist_ok=True)
    names = options["tasks"].split(",") if "tasks" in options else task_names()
    count = int(options.get("clips", 10))
    if not options.get("table"):
        scenes = {}
        # All tasks by turns, so that what is there of a set that is not finished tells of all.
        for i in range(count):
            for k, name in enumerate(names):
                task = load_task(name)
                if name not in scenes:
                    scenes[name] = scene_of(task, options.get("runs", Path("runs/bench")))
                view = SceneView.load(scenes[name])
                judge(task, view, i, count, hand_of(k, i, count), cache, folder, config)
    rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    print(table(rows))
    return 0


def parse(argv: list[str]) -> tuple[dict[str, Any], RunConfig]:
    p = Parser(
        "lucibot bench selection", "[--tasks NAME,...] [--SETTING VALUE ...]",
        __doc__.partition("\n\n")[0],
    )  # fmt: skip
    p.add_argument("--tasks", help="with commas between them (default: all)")
    p.add_argument("--clips", help="of each task, half of them with a fault (default: 10)")
    p.add_argument(
        "--runs", type=Path, help="where runs are whose scenes serve (default: runs/bench)"
    )
    p.add_argument("--cache", type=Path, help="clips and verdicts (default: runs/selection)")
    p.add_argument("--label", help="verdicts of one judge and state of the code (default: now)")
    p.add_argument("--table", action="store_true", help="print the label's table and judge nothing")
    p.add_settings(RunConfig, PRESETS["quick"])
    options, given = p.parse(argv)
    return options, with_settings(PRESETS["quick"], given)


def hand_of(k: int, i: int, count: int) -> str:
    """The tone of clip i of task k; clips of both halves go through all of `HANDS`."""
    half, place = i % 2, i // 2
    return HANDS[(k * ((count + 1) // 2) + place + 5 * half) % len(HANDS)]


def scene_of(task: Task, runs: Path) -> Path:
    """The scene of a run of the task below `runs`; one is begun if there is none."""
    found = sorted(runs.glob(f"**/{task.name}/*/10_scene"))
    if found:
        return stage_folder(RunDirectory.open(found[-1].parent), "scene")
    print(f"{task.name}: no scene below {runs}; making one")
    config = settled_run(task, PRESETS["quick"])
    run = start_run(task, config, seed=SEED, out=runs)
    run_stages(run, task, config, seed=SEED, until="scene")
    return stage_folder(run, "scene")


def judge(
    task: Task, view: SceneView, i: int, count: int, tone: str, cache: Path, results: Path,
    config: RunConfig,
) -> None:  # fmt: skip
    """The row of one clip, kept as a file."""
    path = results / f"{task.name}-{i:02d}.json"
    if path.is_file():
        return
    clip = drawn(task, view, i, count, cache)
    video, planted = (
        clip.parent / f"{tone or 'drawn'}.mp4",
        read_planted(clip.parent / "planted", 0),
    )
    if not video.is_file():
        in_tone(clip, planted["hand"], tone, view, video)
    reading = Reading.load(reading_of(video))
    frames = reading.applied(read_video(video))
    began = time.perf_counter()
    verifier = settled_run(task, config).select.verifier
    verdict = verifier.create(Services(results / "services", config.services)).judge(
        task, view, frames
    )
    row = {
        "task": task.name, "clip": i, "hand": tone, "fault": planted["fault"],
        "usable": bool(verdict.usable), "total": verdict.total, "reasons": list(verdict.reasons),
        "camera_taken_out": reading.camera is not None, "seconds": time.perf_counter() - began,
    }  # fmt: skip
    path.write_text(json.dumps(row, indent=1))
    if verdict.usable == bool(planted["fault"]):
        (results / "false").mkdir(exist_ok=True)
        picture = strip(frames, verdict)
        cv2.imwrite(str(results / "false" / f"{path.stem}.png"), picture[..., ::-1])
    said = "usable" if verdict.usable else "rejected"
    why = "; ".join(verdict.reasons)
    print(f"{path.stem} {planted['fault'] or 'valid'} {tone or 'drawn'}: {said} {verdict.total:.1f} {why}",
          flush=True)  # fmt: skip


def drawn(task: Task, view: SceneView, i: int, count: int, cache: Path) -> Path:
    """The clip as the storyboard draws it, what was planted beside it."""
    folder = cache / "clips" / f"{task.name}-{SEED}-{i:02d}"
    done = folder / "candidate.mp4"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        first = folder / "first_frame.png"
        cv2.imwrite(str(first), view.first_frame[..., ::-1])
        # A set of faulty candidates has each fault before one comes again.
        faulty = i % 2
        config = StoryboardVideo(candidates=max(count // 2, 1), faulty=max(count // 2, 1) * faulty)
        request = VideoRequest(
            task=task, view=view, scene="", first_frame=first, first_frame_sha256=sha256_file(first),
            prompt=Prompt(text="", negative=""), seed=SEED + faulty, index=i // 2,
        )  # fmt: skip
        part = folder / "part"
        part.mkdir(exist_ok=True)
        config.create().fetch(Job(id="here", request=request), part, silent)
        for path in (part / "planted").iterdir():
            path.rename(path.with_stem("candidate_0"))
        (part / "planted").replace(folder / "planted")
        (part / "candidate.mp4").replace(done)
    return done


def in_tone(clip: Path, hand: np.ndarray, tone: str, view: SceneView, out: Path) -> None:
    """The clip with its hand (T, H, W) bool in another tone, and how it is to be read."""
    video = read_video(clip)
    if tone and hand.any():
        video = Video(frames=recoloured(video.frames, hand, tone), fps=video.fps)
    write_video(out, video, crf=18)
    study(read_video(out), view)[0].save(reading_of(out))


def strip(video: Video, verdict: Verdict) -> np.ndarray:
    """(h, w, 3) uint8: a few frames side by side, those that the verdict shows among them."""
    told = {s.frame: s for s in verdict.shown[:2]}
    at = sorted({*np.linspace(0, len(video) - 1, STRIP - len(told)).astype(int).tolist(), *told})
    h, w = video.frames.shape[1:3]
    size = (240, round(240 * h / w))
    out = []
    for t in at:
        frame = cv2.resize(video.frames[t], size, interpolation=cv2.INTER_AREA)
        box = told[t].box if t in told else None
        if box is not None:
            a, b = ((round(box[j] * size[0]), round(box[j + 1] * size[1])) for j in (0, 2))
            cv2.rectangle(frame, a, b, (255, 40, 40), 2)
        out.append(frame)
    return np.hstack(out)
