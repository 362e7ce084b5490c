"""`lucibot chain`: a list of tasks in one scene, each from the state that the last one reached."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.chain.derive import derive
from lucibot.chain.schema import ChainSpec, StepSpec, beside, read_chain
from lucibot.config import PRESETS, RunConfig
from lucibot.console import RichConsole
from lucibot.core.errors import NoUsableVideo, RunFailed, UserError
from lucibot.core.folders import make_folder
from lucibot.core.stopping import goes_on
from lucibot.core.video import Video, read_video, write_video
from lucibot.estimate import announce, estimate, line_of
from lucibot.options import MOST_SEED, add_shorthands, preset, read_seed, with_settings
from lucibot.pipeline import run_stages
from lucibot.preflight import ensure_models, settled_run
from lucibot.record import start_run
from lucibot.services.ledger import Ledger
from lucibot.settings import Parser, listed
from lucibot.sim.state import FinalState
from lucibot.store.finished import stage_folder
from lucibot.store.result import read_result
from lucibot.store.run import RunDirectory, write_json
from lucibot.sweep import Point, begun
from lucibot.task import Task, load_task, task_names

RECORD = "chain.json"
APART = 1000
"""Between the seeds of one step's tries."""


@dataclass(frozen=True, kw_only=True)
class Try:
    """One run of one step."""

    run: Path | None
    seed: int
    success: bool
    score: float
    verdict: str
    """What came of it, in a line."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What became of one step."""

    step: str
    task: Task
    tries: tuple[Try, ...]

    @property
    def done(self) -> Try | None:
        """The try that succeeded."""
        return next((t for t in self.tries if t.success), None)


def command(argv: list[str]) -> int:
    """`lucibot chain`; exit status 1 if a step failed in all its tries.

    Raises:
        UserError: no such file, or it does not fit the scene. RunFailed: see `run_chain`.
    """
    p = Parser(
        "lucibot chain", "FILE [--SETTING VALUE ...]",
        "Do a list of tasks in one scene, each from the state that the last one reached. Stopped, the "
        "same command goes on where it was. Any setting of `lucibot run` holds for every step.",
    )  # fmt: skip
    p.add_argument("file", type=Path, metavar="FILE", help="a chain (TOML); see docs/chain.md")
    p.add_argument("--preset", metavar="|".join(PRESETS), help="default: quick")
    p.add_argument("--seed", metavar="INT", help="of the first try of every step (default: 0)")
    p.add_argument("--out", type=Path, metavar="DIR",
                   help="task folders, runs and the film (default: runs/chains/NAME)")  # fmt: skip
    p.add_argument("--dry-run", action="store_true",
                   help="say what would be asked of others and what it may cost, and stop")  # fmt: skip
    add_shorthands(p, spender="the whole chain")
    p.add_settings(RunConfig, PRESETS["quick"])
    a, given = p.parse(argv)
    file = a["file"]
    chain = read_chain(file)
    config = with_settings(preset(a.get("preset", "quick")), given)
    out = a.get("out", Path("runs/chains") / file.stem)
    if (at := next((q for q in (out, *out.parents) if q.is_file()), None)) is not None:
        raise UserError(f"--out {out}: {at} is a file; choose a folder")
    if a.get("dry_run"):
        print("\n".join(costs(file, chain, config, out) or ["nothing is paid"]))
        try:
            for step in chain.step:
                ensure_models(_config(config, step, file))
        except UserError as e:
            print(f"it cannot begin yet: {e}")
        return 0
    console = RichConsole()
    try:
        with goes_on("the same command goes on where it was"):
            links = run_chain(
                file, chain, config, seed=read_seed(a.get("seed", 0)), out=out, console=console
            )
    finally:
        console.close()
    print("\n".join(lines(links)))
    print(f"film: {out / 'film.mp4'}")
    return 0


def run_chain(
    file: Path, chain: ChainSpec, config: RunConfig, *, seed: int, out: Path, console: RichConsole,
) -> list[Link]:  # fmt: skip
    """Do every step in order; what `out` holds of it is kept. All runs together spend no more than the
    config's cap.

    Raises:
        UserError: a step does not fit the scene. RunFailed: a step failed in all its tries, or a run
            could not be finished; what there is is kept.
    """
    scene, asked = _loaded(file, chain)
    for line in costs(file, chain, config, out):
        console.say(line)
    links: list[Link] = []
    state: FinalState | None = None
    for number, step in enumerate(chain.step, 1):
        folder = out / "tasks" / f"{number}_{step.name}"
        make_folder(folder.parent)
        task = derive(
            scene, step, state=state, folder=folder, chain=file, step_task=asked.get(step.name)
        )
        console.say(f"step {number} of {len(chain.step)}: {task.instruction}")
        link = _tried(task, _config(config, step, file), step, chain.retries, seed, out, console)
        links.append(link)
        write_json(out / RECORD, {"chain": chain.title, "steps": [_told(k, out) for k in links]})
        if link.done is None:
            last = link.tries[-1]
            raise RunFailed(
                f"step {number} ({step.name}) did not succeed in {len(link.tries)} tries, the last: "
                f"{last.verdict}. The steps before it are kept; allow more retries in {file}, or change "
                "settings, and give the same command"
            )
        scene = task
        state = FinalState.load(_replay(link.done) / "final_state.npz")
    _film(links, out)
    return links


def costs(file: Path, chain: ChainSpec, config: RunConfig, out: Path) -> list[str]:
    """What the whole chain may ask others for and pay, in words; empty where it pays nothing.

    Raises:
        UserError: a step does not fit the scene, or the price table or a ledger cannot be read.
    """
    scene, asked = _loaded(file, chain)
    each = [
        estimate(asked.get(s.name, scene), _config(config, s, file)) for s in chain.step
    ]  # fmt: skip
    if not any(e.pays for e in each):
        return []
    said = [
        f"step {n}, each try: {line_of(p)}" for n, e in enumerate(each, 1) for p in e.planned
    ]  # fmt: skip
    tries, cap, spent = chain.retries + 1, config.services.max_usd, _spent(out / "runs")
    usd = tries * sum(p.usd or 0.0 for e in each for p in e.planned)
    total = f"the whole chain, with up to {tries} tries of each step: at most {usd:.2f} USD"
    if any(e.usd is None for e in each):
        total += " and what has no known price"
    if spent:
        total += f"; {spent:.2f} USD are spent already"
    total += (
        "; no cap is set (--max-usd)" if cap is None else f"; the cap for all of it is {cap:g} USD"
    )
    return [*said, total, f"prices: {each[0].prices}"]


def _spent(runs: Path, *, but: Path | None = None) -> float:
    """What all runs of the chain have paid, `but` one [USD]."""
    ledgers = sorted(runs.glob("*/*/services/ledger.jsonl"))
    return sum(Ledger(p).spent_usd() for p in ledgers if p.parents[1] != but)


def _loaded(file: Path, chain: ChainSpec) -> tuple[Task, dict[str, Task]]:
    """The scene, and the task that each step names; what is wrong with any of them is said before the
    first step is run."""
    scene = load_task(_place(file, chain.scene))
    asked = {s.name: load_task(_place(file, s.task)) for s in chain.step if s.task is not None}
    for step in chain.step:
        task = asked.get(step.name)
        names = [*step.actuators, *step.targets]
        if task is not None:
            names += [o.name for o in (*task.actuators, *task.targets)]
        for name in names:
            scene.object(name)
        if step.storyboard is not None and not (file.parent / step.storyboard).is_file():
            raise UserError(f"{file}: step {step.name!r}: no such storyboard: {step.storyboard}")
    return scene, asked


def _place(file: Path, name: str) -> str | Path:
    """A shipped task's name, or a folder beside the chain's file."""
    folder = beside(file, name)
    return name if name in task_names() and not folder.is_dir() else folder


def _config(config: RunConfig, step: StepSpec, file: Path) -> RunConfig:
    if step.video is None:
        return config
    paths = [beside(file, v) for v in listed(step.video)]
    files = all(p.is_file() for p in paths)
    video = ",".join(map(str, paths)) if files else step.video
    return with_settings(config, {"video": video})


def _tried(
    task: Task, config: RunConfig, step: StepSpec, retries: int, seed: int, out: Path,
    console: RichConsole,
) -> Link:  # fmt: skip
    tries: list[Try] = []
    for k in range(retries + 1):
        tries.append(_one(task, config, (seed + k * APART) % (MOST_SEED + 1), out, console))
        console.say(f"{step.name}: {tries[-1].verdict}")
        if tries[-1].success:
            break
    return Link(step=step.name, task=task, tries=tuple(tries))


def _one(task: Task, config: RunConfig, seed: int, out: Path, console: RichConsole) -> Try:
    """One run, begun before or now.

    Raises:
        LuciBotError: it could not be finished (a cap that is reached, a service that does not answer, a
            job that is still under way, another process at work on it): another seed would buy anew what
            this run has or waits for.
    """
    config, runs = settled_run(task, config), out / "runs"
    run = begun(task, Point(task=str(task.folder), seed=seed, method="", config=config), runs)
    if (cap := config.services.max_usd) is not None:
        left = max(cap - _spent(runs, but=run and run.path), 0.0)
        services = dataclasses.replace(config.services, max_usd=left)
        config = dataclasses.replace(config, services=services)
    run = run or start_run(task, config, seed=seed, out=runs)
    announce(estimate(task, config, seed=seed, run=run), console.say)
    try:
        run_stages(run, task, config, seed=seed, console=console)
    except NoUsableVideo as e:
        said = str(e).strip().splitlines()[0]
        return Try(run=run.path, seed=seed, success=False, score=0.0, verdict=said)
    result = read_result(run.path)
    return Try(
        run=run.path, seed=seed, success=result.success, score=result.score, verdict=result.verdict
    )


def _replay(done: Try) -> Path:
    return stage_folder(RunDirectory.open(done.run), "execute")


def _told(link: Link, out: Path) -> dict:
    tries = [
        {**dataclasses.asdict(t), "run": t.run and t.run.relative_to(out).as_posix()}
        for t in link.tries
    ]
    return {"step": link.step, "instruction": link.task.instruction,
            "task": link.task.folder.relative_to(out.resolve()).as_posix(), "tries": tries}  # fmt: skip


def _film(links: list[Link], out: Path) -> None:
    """`film.mp4`, the steps' replays one after the other, and `chain.png`: where each began, and the
    end."""
    replays = [_replay(k.done) for k in links]
    films = [read_video(r / "film.mp4") for r in replays]
    frames = np.concatenate([f.frames for f in films])
    write_video(out / "film.mp4", Video(frames=frames, fps=films[0].fps))
    last = cv2.imread(str(replays[-1] / "goal.png"))[..., ::-1]
    strip = np.concatenate([*(f.frames[0] for f in films), last], axis=1)
    cv2.imwrite(str(out / "chain.png"), strip[..., ::-1])


def lines(links: list[Link]) -> list[str]:
    """What became of each step."""
    width = max(len(k.step) for k in links)
    tries = [f"{len(k.tries)} {'try' if len(k.tries) == 1 else 'tries'}" for k in links]
    return [
        f"{k.step:<{width}}  {n}  {k.tries[-1].verdict}" for k, n in zip(links, tries, strict=True)
    ]
