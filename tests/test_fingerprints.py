"""What changes, and which stages are run again for it: a table."""

import ast
import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import lucibot.pipeline as pipeline
from lucibot.config import RunConfig
from lucibot.options import with_settings
from lucibot.pipeline import STAGES, run_stages, stages_of
from lucibot.preflight import settled_run, unsettled_run
from lucibot.record import open_run, reconfigure, start_run
from lucibot.sim.sharding import settled_batch
from lucibot.store.configs import agrees, settled
from lucibot.task import find_task, load_task

NAMES = [s.name for s in stages_of(RunConfig())]
FROM = {n: set(NAMES[i:]) for i, n in enumerate(NAMES)}
"""A stage and all after it: what it makes is another thing now."""


@pytest.fixture
def made(monkeypatch):
    """Every stage writes what it was told to; returns the names of those that have run."""
    ran: list[str] = []

    class Toy(pipeline.Stage):
        def run(self, context):
            ran.append(self.name)
            (context.folder / "out.txt").write_text(context.folder.name)

    toys = tuple(
        Toy(**{f.name: getattr(s, f.name) for f in dataclasses.fields(s)} | {"begins_early": False})
        for s in STAGES
    )
    monkeypatch.setattr(pipeline, "STAGES", toys)
    return ran


@pytest.fixture
def task_folder(tmp_path) -> Path:
    return Path(shutil.copytree(find_task("cut_dough"), tmp_path / "cut_dough"))


def replaced(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert text.count(old) >= 1, (file, old)
    path.write_text(text.replace(old, new, 1))


def edit(file: str, old: str, new: str):
    return lambda folder: replaced(folder, file, old, new)


TABLE = {
    "a comment": (edit("task.toml", "[camera]", "# Words.\n[camera]"), set()),
    "the README": (lambda folder: (folder / "README.md").write_text("Words."), set()),
    "a success predicate": (edit("task.toml", "max_m = 0.03", "max_m = 0.04"), set()),
    "the title": (edit("task.toml", "Cut dough", "Cut the dough"), set()),
    "the goal": (edit("task.toml", "count = 2", "count = 3"), FROM["select"]),
    "the instruction": (edit("instruction.md", "", "Now: "), FROM["prompt"]),
    "the storyboard": (
        edit("storyboard.toml", "duration_s = 5.2", "duration_s = 5"),
        FROM["imagine"],
    ),
    "a part of [simulation]": (
        edit("task.toml", "settle_steps = 8", "settle_steps = 9"),
        FROM["optimize"],
    ),
    "a material": (edit("task.toml", "5e4", "6e4"), FROM["optimize"]),
    "a mesh's content": (edit("assets/dough.obj", "", "v 0 0 0\n"), FROM["scene"]),
    "the light": (edit("task.toml", "intensity = 1.4", "intensity = 1.5"), FROM["scene"]),
    "the renderer": ({"scene.renderer.spp": "6"}, FROM["scene"]),
    "more videos": ({"video.candidates": "5"}, FROM["imagine"]),
    "threads that draw": ({"video.threads": "1"}, set()),
    "who writes the prompt": ({"prompt.model": "some-model"}, FROM["prompt"]),
    "a budget that lets imagine go on": ({"select.budget": "9"}, FROM["imagine"]),
    "a budget that is there already": ({"select.budget": "3"}, set()),
    "what may be spent": ({"services.max-usd": "3"}, set()),
    "the judge": ({"select.verifier.width": "400"}, FROM["select"]),
    "another candidate": ({"select.force-video": "1"}, FROM["select"]),
    "perception": ({"perceive.keyframes.rate-hz": "3"}, FROM["perceive"]),
    "the population": ({"optimize.search.population": "4"}, FROM["optimize"]),
    "the workers": ({"optimize.workers": "1"}, set()),
    "the batch": ({"optimize.environments": "3"}, FROM["optimize"]),
    "another objective": ({"optimize.objective": "t2r"}, FROM["optimize"]),
    "another start": ({"optimize.start": "random"}, FROM["optimize"]),
    "the film": ({"execute.film-fps": "10"}, FROM["execute"]),
    "an arm": ({"robot": "franka"}, {"robot"}),
    "a default, said": ({"execute.film-fps": "20"}, set()),
}
"""What changes -> the stages that are run again, besides `report`, which always is."""


@pytest.mark.parametrize("what", TABLE)
def test_what_is_run_again(made, task_folder, tmp_path, what):
    change, expected = TABLE[what]
    before = load_task(task_folder)
    run = start_run(before, RunConfig(), seed=0, out=tmp_path / "runs")
    run_stages(run, before, RunConfig(), seed=0)
    assert made == NAMES
    made.clear()
    config = RunConfig()
    if callable(change):
        change(task_folder)
    else:
        config = with_settings(config, change)
    run_stages(run, load_task(task_folder), config, seed=0)
    assert set(made) == expected | {"report"}


def test_where_imagine_asks_the_judge_what_the_judge_reads_counts_for_it(
    made, task_folder, tmp_path
):
    config = with_settings(RunConfig(), {"select.budget": "9"})
    task = load_task(task_folder)
    run = start_run(task, config, seed=0, out=tmp_path / "runs")
    run_stages(run, task, config, seed=0)
    made.clear()
    replaced(task_folder, "task.toml", "count = 2", "count = 3")
    run_stages(run, load_task(task_folder), config, seed=0)
    assert set(made) == FROM["imagine"]
    made.clear()
    config = with_settings(config, {"select.verifier.width": "400"})
    run_stages(run, load_task(task_folder), config, seed=0)
    assert set(made) == FROM["imagine"]


def test_an_objective_that_reads_the_instruction_follows_it(made, task_folder, tmp_path):
    config = with_settings(RunConfig(), {"optimize.objective": "t2r", "prompt": "template"})
    task = load_task(task_folder)
    run = start_run(task, config, seed=0, out=tmp_path / "runs")
    run_stages(run, task, config, seed=0)
    before = {p.name for p in run.path.glob("50_optimize/*")}
    (task_folder / "instruction.md").write_text("Something else.")
    run_stages(run, load_task(task_folder), config, seed=0)
    assert len({p.name for p in run.path.glob("50_optimize/*")} - before) == 1


@pytest.mark.parametrize(
    "seed, again, until, expected",
    [
        (1, None, None, FROM["imagine"]),
        (0, "perceive", None, FROM["perceive"]),
        (0, "perceive", "optimize", {"perceive", "optimize"}),
        (0, None, "optimize", set()),
        (1, None, "select", {"imagine", "select"}),
    ],
)
def test_seed_from_and_until(made, task_folder, tmp_path, seed, again, until, expected):
    task = load_task(task_folder)
    run = start_run(task, RunConfig(), seed=0, out=tmp_path / "runs")
    run_stages(run, task, RunConfig(), seed=0)
    made.clear()
    run_stages(run, task, RunConfig(), seed=seed, again=again, until=until)
    assert set(made) == expected | ({"report"} if until is None else set())


def test_a_video_counts_by_its_content_and_not_by_its_name(made, task_folder, tmp_path):
    clip, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    clip.write_bytes(b"one")
    task = load_task(task_folder)

    def go(path: Path) -> set[str]:
        made.clear()
        config = with_settings(RunConfig(), {"video": str(path)})
        with reconfigure(run, task, config, 0):
            run_stages(run, task, config, seed=0)
        return set(made) - {"report"}

    config = with_settings(RunConfig(), {"video": str(clip)})
    run = start_run(task, config, seed=0, out=tmp_path / "runs")
    run_stages(run, task, config, seed=0)
    clip.rename(other)
    assert go(other) == set(), "the same file under another name"
    other.write_bytes(b"two")
    assert go(other) == FROM["imagine"] - {"report"}, "another file under the same name"
    other.unlink()
    made.clear()
    run_stages(run, task, open_run(run.path)[2], seed=0)
    assert made == ["report"], "what was made of a file that is gone is still good"


def test_a_new_setting_with_a_default_changes_no_fingerprint_and_a_changed_default_does_not_pass():
    @dataclass(frozen=True)
    class Before:
        width: int = 3

    @dataclass(frozen=True)
    class After:
        width: int = 3
        height: int = 4

    def told(config, **more):
        found = settled(config, str, **more)
        return {k: v for k, v in found.items() if k != "type"}

    assert told(Before()) == told(After()) == {}
    assert told(Before(width=5)) == told(After(width=5)) == {"width": 5}
    assert told(After(height=5)) != told(After())
    # A manifest keeps the defaults it was made with.
    written = settled(Before(), str, defaults=True) | {"type": "After"}
    assert agrees(written, After(), str)
    assert not agrees(written | {"width": 2}, After(), str), "it has another default now"
    assert not agrees(written, After(height=5), str), "what is new is set, as a preset may"
    assert agrees(written | {"gone": 7}, After(), str)


def test_a_stage_made_with_another_default_is_made_again(made, task_folder, tmp_path):
    task = load_task(task_folder)
    run = start_run(task, RunConfig(), seed=0, out=tmp_path / "runs")
    run_stages(run, task, RunConfig(), seed=0)
    made.clear()
    (manifest,) = run.path.glob("60_execute/*/manifest.json")
    told = json.loads(manifest.read_text())
    told["config"]["film_fps"] += 1
    manifest.write_text(json.dumps(told))
    run_stages(run, task, RunConfig(), seed=0)
    assert made == ["execute", "report"]


def test_a_run_keeps_the_batch_it_began_with(monkeypatch):
    for cores in (1, 4, 64):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, n=cores: range(n), raising=False)
        config = settled_run(load_task("stack_cups"), RunConfig())
        assert config.optimize.environments == 8
    kept = dataclasses.replace(config.optimize, environments=3)
    config = dataclasses.replace(config, optimize=kept)
    assert settled_run(load_task("stack_cups"), config).optimize == config.optimize
    # Where bodies do not collide a batch of any size gives the same bits.
    assert settled_run(load_task("cut_dough"), RunConfig()).optimize == RunConfig().optimize


def test_a_batch_that_was_settled_follows_another_device_or_population():
    task, begun = load_task("stack_cups"), settled_run(load_task("stack_cups"), RunConfig())

    def environments(config: RunConfig, **changes) -> int | None:
        given = {f"optimize.{n.replace('__', '.')}": v for n, v in changes.items()}
        return settled_run(
            task, with_settings(unsettled_run(task, config), given)
        ).optimize.environments

    assert environments(begun) == begun.optimize.environments == 8
    assert environments(begun, search__population="128") == settled_batch(task, 128) != 8
    assert environments(begun, device="cuda") is None
    asked = with_settings(begun, {"optimize.environments": "3"})
    assert environments(asked, device="cuda", search__population="128") == 3
    assert environments(begun, device="cuda", environments="8") == 8


WHERE = {
    r"spec\.success\b": {"objective", "evaluate", "chain", "task", "authoring", "checks"},
    r"spec\.goal\b": {
        "providers/verifier", "stages/select.py", "evaluate", "chain", "task", "authoring", "checks",
    },
    r"spec\.simulation\b": {
        "sim", "optimize", "robot", "objective/success", "objective/video.py", "stages/execute.py", "view.py", "collect", "task",
        "authoring", "checks",
    },
    r"material\.(?!kind\b)\w+": {
        "sim", "optimize", "objective/success", "view.py", "chain", "collect", "task", "authoring", "checks",
    },
    r"task\.instruction\b": {
        "providers/prompt", "providers/verifier", "providers/asking.py", "baselines", "stages/report.py",
        "record.py", "evaluate", "chain", "collect", "task", "authoring", "checks",
    },
    r"storyboard\.toml": {"providers/video", "chain", "task", "authoring", "checks"},
}  # fmt: skip
"""How code names a part of the task -> the folders whose stages have it among what they read; `checks` looks
at all of it before any stage, `view.py`, `evaluate` and `collect` after them, and `chain` writes tasks."""


@pytest.mark.parametrize("pattern", WHERE)
def test_code_names_only_what_its_stage_says_that_it_reads(pattern):
    """A stage that began to read another part would otherwise keep what is out of date."""
    root = Path(pipeline.__file__).parent
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if any(name == w or name.startswith(f"{w}/") for w in WHERE[pattern]):
            continue
        code = "\n".join(ast.unparse(n) for n in _without_docstrings(path))
        found = re.search(pattern, code)
        assert found is None, f"{name} reads {found[0]}: add the part to `reads` of its stage"


def _without_docstrings(path: Path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                n for n in body
                if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ] or [ast.Pass()]  # fmt: skip
    return tree.body
