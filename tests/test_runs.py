"""Runs as a user meets them: stopped, moved, damaged, changed, and in each other's way."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import lucibot
import lucibot.pipeline as pipeline
from lucibot import cli
from lucibot.cli import main
from lucibot.config import RunConfig
from lucibot.console import RichConsole
from lucibot.core.caches import ensure_caches
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.stopping import GRACE_S, Stopped
from lucibot.core.video import Video, write_video
from lucibot.pipeline import STAGES, Stage, stages_of
from lucibot.store.lock import InUse
from lucibot.store.result import Result, fields_table, read_result
from lucibot.store.run import RunDirectory
from lucibot.task import find_task

RESULT = Result(
    task="cut_dough", task_digest="", instruction="", seed=0, success=True, score=1.0, missed=[],
    metrics={}, loss=1.0, terms={}, rollouts=3, failed_rollouts=0, same_loss_when_replayed=True,
    seconds={"scene": 2.0, "optimize": 9.0}, taken_over={"scene": "other"}, own_seconds=9.0,
    taken_over_seconds=2.0, wall_seconds=9.5, cost_usd=0.0, video={}, versions={}, machine={},
)  # fmt: skip
MADE = len(stages_of(RunConfig())) - 1
"""Stages that can be kept: all but the report."""
VERDICT = {
    "match": 2.0, "motion": 1.0, "goal": 2.0, "total": 5.0, "usable": False, "new_object": False,
    "reasons": ["a cup [appears]"], "evidence": {},
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Stage):
    """Writes what the report reads of a stage, and nothing that takes time."""

    def run(self, context):
        wrong = TROUBLE.get(self.name)
        write = WRITERS.get(self.name, lambda context: None)
        write(context)
        if wrong is not None:
            raise wrong
        if self.name == "select" and (context.config.force_video or 0) > 3:
            raise UserError(f"--force-video {context.config.force_video}: there are 0 to 3")
        if self.last_words:
            text = json.dumps(dataclasses.asdict(RESULT))
            (context.run.path / "result.json").write_text(text)

    def begin(self, task, config):
        raise AssertionError("nothing is begun early here")


TROUBLE: dict[str, BaseException] = {}
"""What a stage raises."""


def write_scene(context) -> None:
    camera = Camera.look_at(
        position=(0, -0.4, 0.3), target=(0, 0, 0), vertical_fov_deg=48, width=64, height=48
    )
    names = tuple(o.name for o in context.task.objects)
    rgb, depth = np.full((48, 64, 3), 90, np.uint8), np.ones((48, 64), np.float32)
    SceneView(
        camera=camera, names=names, first_frame=rgb, background_frame=rgb, depth_m=depth,
        labels=np.zeros((48, 64), np.uint8), background_depth_m=depth,
    ).save(context.folder)  # fmt: skip


def write_prompt(context) -> None:
    told = {"text": "Cut [it].", "negative": "blur"}
    (context.folder / "prompt.json").write_text(json.dumps(told))


def write_candidates(context) -> None:
    frames = np.full((6, 48, 64, 3), 90, np.uint8)
    write_video(context.folder / "candidate_0.mp4", Video(frames=frames, fps=15.0))
    rows = [
        {"file": "candidate_0.mp4", "sha256": "0", "trouble": ""},
        {"file": None, "sha256": None, "trouble": "refused: a [knife]"},
    ]
    listed = {"kind": "storyboard", "candidates": rows}
    (context.folder / "candidates.json").write_text(json.dumps(listed))


def write_verdicts(context) -> None:
    told = {"chosen": None, "usable_above": 12.0,
            "candidates": [{"file": "candidate_0.mp4", **VERDICT}]}  # fmt: skip
    (context.folder / "verdicts.json").write_text(json.dumps(told))


WRITERS = {"scene": write_scene, "prompt": write_prompt, "imagine": write_candidates,
           "select": write_verdicts}  # fmt: skip


@pytest.fixture
def toys(monkeypatch):
    """The stages, played; what they raise is put into the dictionary that this returns."""
    told = {f.name for f in dataclasses.fields(Stage)}
    stages = tuple(
        Toy(**{n: getattr(s, n) for n in told} | {"begins_early": False}) for s in STAGES
    )
    monkeypatch.setattr(pipeline, "STAGES", stages)
    TROUBLE.clear()
    yield TROUBLE
    TROUBLE.clear()


def say(capsys, *argv) -> tuple[int, str]:
    status = main([str(a) for a in argv])
    captured = capsys.readouterr()
    return status, captured.err + captured.out


@pytest.fixture
def run(toys, tmp_path, capsys) -> Path:
    assert say(capsys, "run", "cut_dough", "--out", tmp_path / "runs")[0] == 0
    (path,) = (tmp_path / "runs" / "cut_dough").iterdir()
    return path


def kept(text: str) -> list[str]:
    return re.findall(r"(\w+) +kept from before", text)


def test_settings_given_to_resume_are_kept_for_the_next_one(run, capsys):
    status, text = say(capsys, "resume", run, "--execute.film-fps", 10, "--seed", "0")
    assert status == 0 and kept(text) == [
        "scene",
        "prompt",
        "imagine",
        "select",
        "perceive",
        "optimize",
    ]
    status, text = say(capsys, "resume", run)
    assert kept(text)[-1] == "execute"
    assert json.loads((run / "run.json").read_text())["config"]["execute"]["film_fps"] == 10.0


def test_a_loss_term_that_is_newer_than_a_run_has_no_say_in_it_and_that_is_said(run, capsys):
    def of_before():
        record = json.loads((run / "run.json").read_text())
        for term in ("target_lasts", "affordance_clearance"):
            del record["config"]["optimize"]["objective"]["weights"][term]
        (run / "run.json").write_text(json.dumps(record))

    weight = "--optimize.objective.weights.target-lasts"
    of_before()
    status, text = say(capsys, "resume", run)
    assert (
        status == 0 and text.count(f"no say in it, as before: target_lasts; {weight} WEIGHT") == 1
    )
    weights = json.loads((run / "run.json").read_text())["config"]["optimize"]["objective"][
        "weights"
    ]
    assert weights["target_lasts"] == 0
    assert "no say in it" not in say(capsys, "resume", run)[1], "it is known now"
    of_before()
    assert "no say in it" not in say(capsys, "resume", run, weight, "1")[1]


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--force-video", "99"], "0 to 3"),
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--optimize.serch.population", "2"], "Did you mean"),
        (["--seed", "-1"], "--seed -1"),
        (["--from", "percieve"], "Did you mean 'perceive'"),
        (["--until", "percieve"], "Did you mean 'perceive'"),
        (["--preset", "papr"], "Did you mean 'paper'"),
    ],
)
def test_a_mistake_given_to_resume_is_not_kept(run, capsys, argv, named):
    before = (run / "run.json").read_bytes()
    status, text = say(capsys, "resume", run, *argv)
    assert status == 2 and named in text and "Traceback" not in text
    assert (run / "run.json").read_bytes() == before
    assert say(capsys, "resume", run)[0] == 0


def test_from_and_until(run, capsys):
    status, text = say(capsys, "resume", run, "--until", "perceive")
    assert status == 0 and len(kept(text)) == 5 and "stopped after perceive" in text
    assert (run / "result.json").exists(), "nothing was made anew, so the result is still good"
    status, text = say(capsys, "resume", run, "--from", "select", "--until", "perceive")
    assert status == 0 and kept(text) == ["scene", "prompt", "imagine"]
    assert f"stopped after perceive; `lucibot resume {run}` goes on" in text
    # What lay there was of another command.
    assert not (run / "result.json").exists()
    status, text = say(capsys, "resume", run)
    assert status == 0 and len(kept(text)) == MADE and (run / "result.json").exists()


def test_a_run_directory_can_be_moved(run, capsys, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere"
    shutil.move(run, moved)
    monkeypatch.chdir(tmp_path)
    status, text = say(capsys, "resume", "elsewhere")
    assert status == 0 and len(kept(text)) == MADE


def test_a_task_folder_can_be_moved(toys, capsys, tmp_path):
    task = Path(shutil.copytree(find_task("cut_dough"), tmp_path / "mine"))
    with (task / "instruction.md").open("a") as f:
        f.write("Mind your fingers.")
    assert say(capsys, "run", task, "--out", tmp_path / "runs")[0] == 0
    (run,) = (tmp_path / "runs" / "mine").iterdir()
    moved = task.rename(tmp_path / "moved")
    status, text = say(capsys, "resume", run)
    assert status == 2 and str(task) in text and "--task FOLDER" in text
    status, text = say(capsys, "resume", run, "--task", moved)
    assert status == 0 and len(kept(text)) == MADE
    assert say(capsys, "resume", run)[0] == 0, "and it is remembered"


@pytest.mark.parametrize("command", ["resume", "show"])
@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[]", b"\xff\x00\x80", b'{"task": "cut', b'{"task": 3}', b"null"]
)
def test_damaged_files_are_one_line(run, capsys, command, damage):
    name = "run.json" if command == "resume" else "result.json"
    (run / name).write_bytes(damage)
    status, text = say(capsys, command, run)
    assert status == 2 and name in text and "damaged" in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize("config", [{}, {"type": "RunConfig", "scene": 3}, {"type": "Other"}])
def test_a_damaged_config_is_one_line(run, capsys, config):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "config": config}))
    status, text = say(capsys, "resume", run)
    assert status == 2 and "run.json" in text and len(text.strip().splitlines()) == 1


def test_a_damaged_result_is_written_anew(run, capsys):
    (run / "result.json").write_text("[]")
    assert say(capsys, "resume", run)[0] == 0
    assert read_result(run) == RESULT


@pytest.mark.parametrize("manifest", ["[]", "{}", "null", '{"files": 3}'])
def test_a_damaged_manifest_is_made_anew(run, capsys, manifest):
    (path,) = run.glob("20_imagine/*/manifest.json")
    path.write_text(manifest)
    status, text = say(capsys, "resume", run)
    assert status == 0 and "manifest.json is damaged" in text and "imagine" not in kept(text)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_out_that_is_a_file(toys, capsys, tmp_path, below):
    (tmp_path / "file").touch()
    for command in (["run", "cut_dough"], ["sweep", "cut_dough"]):
        status, text = say(capsys, *command, "--out", tmp_path / "file" / below)
        assert status == 2 and f"{tmp_path / 'file'} is a file" in text


def test_one_process_works_on_a_run_and_the_other_says_who(run, capsys):
    with RunDirectory(run).locked():
        status, text = say(capsys, "resume", run, "--force-video", "1")
    assert status == 1 and f"in use by process {os.getpid()} since 20" in text
    assert 'force_video": 1' not in (run / "run.json").read_text()
    # A lock file that was left behind holds nothing.
    (run / "run.lock").write_text('{"pid": 1, "since": "2020-01-01 00:00:00"}')
    assert say(capsys, "resume", run)[0] == 0
    directory = RunDirectory(run)
    with directory.locked(), directory.locked():
        with pytest.raises(InUse), RunDirectory(run).locked():
            pass


def test_a_full_disk_says_what_had_finished(toys, capsys, tmp_path):
    toys["imagine"] = OSError(errno.ENOSPC, "No space left on device", "/x/candidate_0.mp4")
    status, text = say(capsys, "run", "cut_dough", "--out", tmp_path)
    assert (
        status == 1
        and "No space left on device (/x/candidate_0.mp4); scene, prompt had finished" in text
    )
    toys["scene"] = OSError(errno.EACCES, "Permission denied")
    status, text = say(capsys, "run", "cut_dough", "--out", tmp_path / "b")
    assert status == 1 and "Permission denied; no stage had finished" in text


def test_what_is_left_becomes_a_line_and_a_file_with_the_details(capsys, monkeypatch):
    def fault(argv):
        raise ZeroDivisionError("of [/b] by\nzero")

    monkeypatch.setitem(cli.COMMANDS, "doctor", fault)
    status, text = say(capsys, "doctor", "--x")
    assert status == 1 and len(text.strip().splitlines()) == 1
    assert "ZeroDivisionError: of [/b] by zero" in text
    details = Path(re.search(r"details are in (\S+?)\)", text)[1])
    told = details.read_text()
    details.unlink()
    assert "in fault" in told and "lucibot doctor --x" in told and "genesis-world" in told


@pytest.mark.parametrize(
    "stop, expected", [(KeyboardInterrupt(), 130), (Stopped(signal.SIGTERM), 143)]
)
def test_a_stopped_run_says_how_it_goes_on(toys, capsys, tmp_path, stop, expected):
    toys["imagine"] = stop
    status, text = say(capsys, "run", "cut_dough", "--out", tmp_path)
    (run,) = (tmp_path / "cut_dough").iterdir()
    assert status == expected
    assert text.splitlines()[-1] == (
        f"lucibot: stopped; `lucibot resume {run}` goes on from the last checkpoint"
    )
    status, text = say(capsys, "sweep", "cut_dough", "--out", tmp_path / "sweep")
    assert status == expected and "stopped; the same command goes on where it was" in text


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("unwinds", [True, False])
def test_a_signal_ends_the_run_and_its_children(tmp_path, number, status, unwinds):
    """SIGTERM comes to the process alone, Ctrl-C to its whole group. What does not unwind, such as
    a thread in the middle of its work, is ended."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from concurrent.futures import ThreadPoolExecutor
        from lucibot import cli
        from lucibot.sim.process import SimProcess

        def work(argv):
            if UNWINDS:
                return wait()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(time.sleep, 600)
                wait()

        def wait():
            process = SimProcess(time.sleep, 600)
            try:
                time.sleep(1.5)
                print(process.pid, flush=True)
                time.sleep(600)
            finally:
                process.close(at_once=True)

        if __name__ == "__main__":
            cli.COMMANDS["doctor"] = work
            sys.exit(cli.main(["doctor"]))
        time.sleep(60)  # The child is among its imports.
        """).replace("UNWINDS", str(unwinds))
    )
    process = subprocess.Popen([sys.executable, script], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    child = int(process.stdout.readline())
    begin = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and time.monotonic() - begin < GRACE_S + 10
    assert said.strip() == "lucibot: stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("terminal", [True, False])
def test_square_brackets_are_text(capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    console = RichConsole()
    report = console.start(STAGES[0])
    report("cup [/b] of [red]tea", 0.5)
    console.say("saw [/b] in [bold]a.mp4")
    console.close()
    assert "saw [/b] in [bold]a.mp4" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_to_is_replaced_with_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    ensure_caches()
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "cannot be written to" in said
    assert (Path.home() / ".cache").parent.is_dir() and Path.home().parent == tmp_path
    ensure_caches()
    assert not capsys.readouterr().err


def test_all_candidates_rejected_still_gives_a_report(toys, capsys, tmp_path):
    assert say(capsys, "run", "cut_dough", "--out", tmp_path / "b", "--until", "imagine")[0] == 0
    (until,) = (tmp_path / "b" / "cut_dough").glob("*/report.html")
    assert "Stopped at imagine" in until.read_text() and "not judged" in until.read_text()
    assert "refused: a [knife]" in until.read_text()
    toys["select"] = RunFailed("every video was rejected (points 5.0)")
    status, text = say(capsys, "run", "cut_dough", "--out", tmp_path)
    assert status == 1 and "every video was rejected" in text
    (run,) = (tmp_path / "cut_dough").iterdir()
    page = (run / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)"', page) == [
        "stopped",
        "prompt",
        "candidates",
        "timings",
        "appendix",
    ]
    assert "Stopped at select" in page and "every video was rejected (points 5.0)" in page
    assert "Not finished: select, perceive, optimize, execute" in page
    assert "a cup [appears]" in page and "data:video/mp4" in page
    assert not (run / "result.json").exists()


def test_a_later_failure_shows_what_there_is_and_takes_the_old_result_away(run, toys, capsys):
    toys["imagine"] = RunFailed("the model returned no video")
    assert say(capsys, "resume", run, "--video.candidates", "2")[0] == 1
    page = (run / "report.html").read_text()
    assert "refused: a [knife]" in page
    assert "the model returned no video" in page and "The scene as it starts" in page
    assert say(capsys, "show", run)[0] == 2


def test_a_fault_in_a_stage_is_in_its_log_and_in_the_report(toys, capsys, tmp_path):
    toys["imagine"] = KeyError("depth")
    status, text = say(capsys, "run", "cut_dough", "--out", tmp_path)
    assert status == 1 and "KeyError" in text
    (log,) = tmp_path.glob("cut_dough/*/20_imagine/*/log.jsonl")
    assert "KeyError: 'depth'" in log.read_text() and "Traceback" in log.read_text()
    assert list(tmp_path.glob("cut_dough/*/report.html"))


def test_the_last_line_tells_own_seconds_from_those_taken_over(run, capsys):
    _, text = say(capsys, "show", run)
    assert "9 s and 2 s taken over from earlier runs" in text


def test_what_was_missed_is_never_rounded_up_to_a_success():
    spread = {"predicate": "spread(butter)", "value": 2.4999, "wanted": 2.5, "metrics": {}}
    nested = {"predicate": "nested(cup)", "value": 0.004, "wanted": 0.01,
              "metrics": {"cup.below_rim_m": -0.012}}  # fmt: skip
    result = dataclasses.replace(RESULT, success=False, score=0.99987, missed=[spread, nested])
    assert result.verdict == (
        "no success (score 0.9999: spread(butter) 2.4999, wanted 2.5; nested(cup) 0.004, wanted 0.01 "
        "(cup.below_rim_m -0.012))"
    )
    assert RESULT.verdict == "success (score 1.00)"


def test_the_readme_has_every_field_of_the_result():
    readme = Path(__file__).resolve().parents[1] / "README.md"
    assert fields_table() in readme.read_text()


def test_the_python_door(toys, tmp_path):
    for name in lucibot.__all__:
        assert getattr(lucibot, name) is not None
    done = lucibot.run("cut_dough", out=tmp_path, seed=3, until="select",
                       settings={"optimize.search.population": 4})  # fmt: skip
    with pytest.raises(UserError, match="no result yet"):
        done.result()
    done = lucibot.resume(done, settings={"optimize.search.sigma_depth_m": None})
    assert done.result() == RESULT and done.record["seed"] == 3
    assert done.record["config"]["optimize"]["search"]["sigma_depth_m"] is None
    assert done.record["config"]["optimize"]["search"]["population"] == 4
    with pytest.raises(UserError, match="Did you mean"):
        lucibot.run("cut_dough", settings={"optimize.serch.population": 4})


def test_the_door_imports_nothing_heavy():
    code = (
        "import sys, lucibot; dir(lucibot); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'jax', 'genesis', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
