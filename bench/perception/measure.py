"""What perception and selection read of drawings, by two artists side by side.

    lucibot bench perception [--tasks NAME,...] [--seeds 100,101] [--artists storyboard,second]
                             [--runs DIR] [--cache DIR] [--label NAME] [--faulty N] [--clips] [--table]
                             [--tones [--track]]
    lucibot bench perception --goals [--videos DIR]

The first artist is the built-in storyboard, the second draws finished runs in another way (see
artist.py). Clips are drawn once; every figure is kept as a file of its own below the label's folder, so
that several processes can work on different tasks, and a run that was stopped goes on. Where a task has
no finished run below --runs, one is made.

Each seed has a valid clip and --faulty others, whose faults take turns. Of the valid ones is measured what perception reads, of
all what select says of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from lucibot import sweep
from lucibot.config import PRESETS, PerceiveConfig
from lucibot.core.errors import RunFailed, unknown_name
from lucibot.core.progress import silent
from lucibot.pipeline import run_stages
from lucibot.providers.verifier import PixelVerifier
from lucibot.record import start_run
from lucibot.task import Task, load_task, task_names

from . import tones
from .clips import ARTISTS, Clip, clips
from .goals import drawn_cases, given_cases, goal_table
from .scores import read_errors

COLUMNS = {
    "mask_iou": ("masks [IoU]", 1.0, 3), "hand_iou": ("hands [IoU]", 1.0, 3),
    "position_mm": ("position [mm]", 1.0, 1), "depth_mm": ("along the ray [mm]", 1.0, 1),
    "depth_mm_p90": ("90% within [mm]", 1.0, 1), "rotation_deg": ("rotation [deg]", 1.0, 1),
    "contact_right": ("contacts right [%]", 100.0, 0), "seconds": ("perceive [s]", 1.0, 0),
}  # fmt: skip
"""Of the table: a row's field -> heading, factor, decimals."""


def main(argv: list[str]) -> int:
    a = parse(argv)
    for artist in a.artists:
        if artist not in ARTISTS:
            raise unknown_name("artist", artist, ARTISTS)
    if a.goals:
        cases = [*drawn_cases(100), *given_cases(a.videos, a.cache / "scenes")]
        print(goal_table(cases))
        return 0
    folder = a.cache / "results" / a.label
    folder.mkdir(parents=True, exist_ok=True)
    if a.tones:
        return other_hands(a, folder / "tones")
    if not a.table:
        for name in a.tasks or task_names():
            task = load_task(name)
            run = finished_run(task, a.runs)
            for seed in sweep.seeds(a.seeds):
                for artist in a.artists:
                    for clip in clips(task, artist, seed, cache=a.cache, run=run, faulty=a.faulty):
                        if not a.clips:
                            measured(clip, folder, a.cache / "readings" / a.label)
    rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    print(table(rows))
    return 0


def other_hands(a: argparse.Namespace, folder: Path) -> int:
    """The storyboard's valid clips with hands in other colours."""
    folder.mkdir(exist_ok=True)
    if not a.table:
        for name in a.tasks or task_names():
            task = load_task(name)
            run = finished_run(task, a.runs)
            for seed in sweep.seeds(a.seeds):
                clip = clips(task, "storyboard", seed, cache=a.cache, run=run, faulty=0)[0]
                for tone in ("", *tones.TONES):
                    tones.measured(clip, tone, folder, track=a.track)
    print(tones.table(folder))
    return 0


def finished_run(task: Task, runs: Path) -> Path:
    """A run directory below `runs` whose replay is there; one is made if there is none."""
    found = sorted(runs.glob(f"**/{task.name}/*/60_execute/*/rollout.npz"))
    if found:
        return found[-1].parents[2]
    print(f"{task.name}: no finished run below {runs}; making one")
    config = PRESETS["quick"]
    run = start_run(task, config, seed=100, out=runs)
    run_stages(run, task, config, seed=100)
    return finished_run(task, runs)


def measured(clip: Clip, results: Path, readings: Path) -> dict:
    """One clip's row, kept as a file."""
    path = results / f"{clip.key}.json"
    if path.is_file():
        return json.loads(path.read_text())
    view, video, drawn = clip.view(), clip.video(), clip.drawn()
    row = {"artist": clip.artist, "task": clip.task.name, "seed": clip.seed, "fault": drawn["fault"],
           "frames": len(video)}  # fmt: skip
    began = time.perf_counter()
    verdict = PixelVerifier().create().judge(clip.task, view, video)
    row |= {"judge_seconds": time.perf_counter() - began, "usable": bool(verdict.usable),
            "total": verdict.total, "reasons": list(verdict.reasons)}  # fmt: skip
    if not drawn["fault"]:
        from lucibot.stages.perceive import perceive

        began = time.perf_counter()
        try:
            read = perceive(clip.task, view, video, PerceiveConfig(), silent)
        except RunFailed as e:
            row["failed"] = str(e)
        else:
            row["seconds"] = time.perf_counter() - began
            row |= read_errors(clip.task, read, drawn)
            read.save(readings / clip.key)
    path.write_text(json.dumps(row, indent=1))
    brief = {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}
    print(
        f"{clip.key} {row['fault'] or 'valid'}: {'usable' if row['usable'] else 'rejected'}, {brief}",
        flush=True,
    )
    return row


def table(rows: list[dict]) -> str:
    """Markdown: a line a task and artist, medians over seeds; then what select says."""
    heads = " | ".join(h for h, _, _ in COLUMNS.values())
    lines = [f"| task | artist | {heads} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for task in [*dict.fromkeys(r["task"] for r in rows), ""]:
        for artist in ARTISTS:
            mine = [
                r
                for r in rows
                if r["artist"] == artist and task in ("", r["task"]) and not r["fault"]
            ]
            if not mine:
                continue
            cells = []
            for name, (_, factor, digits) in COLUMNS.items():
                values = [factor * r[name] for r in mine if name in r]
                if not values:
                    cells.append("")
                elif task:
                    cells.append(" / ".join(f"{v:.{digits}f}" for v in values))
                else:
                    cells.append(f"{np.mean(values):.{digits}f}")
            lines.append(f"| {task or 'mean'} | {artist} | {' | '.join(cells)} |")
    lines += [
        "",
        "| select | valid taken | faulty taken | precision | recall | faulty taken |",
        "| --- " * 6 + "|",
    ]
    for artist in ARTISTS:
        mine = [r for r in rows if r["artist"] == artist]
        if not mine:
            continue
        good = [r for r in mine if not r["fault"]]
        bad = [r for r in mine if r["fault"]]
        hits, false = sum(r["usable"] for r in good), sum(r["usable"] for r in bad)
        precision = f"{hits / (hits + false):.2f}" if hits + false else "-"
        names = ", ".join(f"{r['task']} {r['seed']} {r['fault']}" for r in bad if r["usable"])
        lines.append(f"| {artist} | {hits}/{len(good)} | {false}/{len(bad)} | {precision} | "
                     f"{hits / max(1, len(good)):.2f} | {names} |")  # fmt: skip
    rejected = [r for r in rows if not r["fault"] and not r["usable"]]
    lines += ["", *(f"- rejected though valid: {r['artist']} {r['task']} {r['seed']} ({r['total']:.1f}): "
                    f"{'; '.join(r['reasons'])}" for r in rejected)]  # fmt: skip
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="lucibot bench perception", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = {"type": lambda s: s.split(",")}
    p.add_argument("--tasks", default=None, help="default: all", **names)
    p.add_argument("--seeds", default="100,101")
    p.add_argument("--artists", default=list(ARTISTS), **names)
    p.add_argument("--runs", type=Path, default=Path("runs/bench"), help="where finished runs are")
    p.add_argument("--cache", type=Path, default=Path("runs/perception"), help="clips and figures")
    p.add_argument("--faulty", type=int, default=1, help="faulty clips a task, seed and artist")
    p.add_argument("--label", default="now", help="figures of one state of the code")
    p.add_argument("--clips", action="store_true", help="draw the clips and measure nothing")
    p.add_argument(
        "--tones", action="store_true",
        help="the storyboard's valid clips with hands in fifteen other colours instead",
    )  # fmt: skip
    p.add_argument("--track", action="store_true", help="of those read the masks, too")
    p.add_argument(
        "--table", action="store_true", help="print the label's table and measure nothing"
    )
    p.add_argument("--goals", action="store_true", help="judge labelled goal frames instead")
    p.add_argument("--videos", type=Path, default=Path("videos"),
                   help="where the clips of goal_frames.toml are")  # fmt: skip
    return p.parse_args(argv)
