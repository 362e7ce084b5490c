"""The command line: one clear line and the right exit status for every mistake."""

import json
import subprocess
import sys
import textwrap

import pytest

from lucibot.cli import COMMANDS, main


def say(capsys, *argv) -> tuple[int, str]:
    status = main(list(argv))
    captured = capsys.readouterr()
    return status, captured.err + captured.out


@pytest.mark.parametrize(
    "argv, named",
    [
        (["rum"], "Did you mean 'run'"),
        (["run", "cut_dogh"], "Did you mean 'cut_dough'"),
        (["run", "cut_dough", "--video", "nowhere.mp4"], "nowhere.mp4"),
        (["run", "cut_dough", "--preset", "papr"], "Did you mean 'paper'"),
        (["resume", "nowhere"], "run.json"),
        (["show", "nowhere"], "run.json"),
        (["tasks", "check", "cut_dogh"], "Did you mean 'cut_dough'"),
        (["bench", "terms", "nowhere"], "run.json"),
        (["bench", "tasks", "--tasks", "cut_dogh"], "Did you mean 'cut_dough'"),
        (["bench", "tasks", "--methods", "ful"], "Did you mean 'full'"),
        (["bench", "perception", "--artists", "thrid"], "storyboard"),
        (["bench", "rollouts_to_loss", "--settings", "quik"], "Did you mean 'quick'"),
        (["bench", "profile", "cut_dogh"], "Did you mean 'cut_dough'"),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, argv, named):
    status, text = say(capsys, *argv)
    assert status == 2
    assert named in text and "Traceback" not in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [[c] for c in COMMANDS] + [["bench", n] for n in ("tasks", "terms", "perception", "rollouts_to_loss", "profile", "twins")],
    ids=" ".join,
)  # fmt: skip
def test_every_command_explains_itself_and_refuses_what_it_does_not_know(capsys, argv):
    for more, expected in ((["--help"], 0), (["--no-such-flag"], 2)):
        try:
            status = main([*argv, *more])
        except SystemExit as left:
            status = left.code
        assert status == expected
        text = "".join(capsys.readouterr())
        assert "Traceback" not in text
        assert " ".join(argv) in text or "--no-such-flag" in text


def test_doctor_says_what_works(capsys):
    status, text = say(capsys, "doctor")
    assert status == 0 and "BAD" not in text
    for what in ("genesis-world", "gpu", "memory", "caches", "ray tracer", "cut_dough"):
        assert what in text


def test_doctor_says_what_mends_each_missing_thing(capsys, monkeypatch, tmp_path):
    from lucibot import doctor
    from lucibot.core.errors import UserError

    def no_tasks():
        raise UserError("none")

    absent = {"mitsuba", "ray", "evosax"}
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda n: None if n in absent else real(n))
    monkeypatch.setattr(doctor.metadata, "requires", lambda n: ["evosax==0.3.2", "numpy>=99",
                                                                "cma; extra == 'pycma'"])  # fmt: skip
    monkeypatch.setattr(doctor, "LEAST_DISK_GIB", 1e9)
    monkeypatch.setattr(doctor, "LEAST_MEMORY_GIB", 1e9)
    monkeypatch.setattr("lucibot.task.task_names", no_tasks)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = {c.what: c for c in doctor.checks()}
    assert "pip install 'evosax==0.3.2'" == found["evosax"].mend
    assert "pip install 'numpy>=99'" == found["numpy"].mend
    assert "pip install 'lucibot[cluster]'" == found["ray"].mend and found["ray"].fine
    bad = {n for n, c in found.items() if not c.fine}
    assert bad == {"evosax", "numpy", "disk", "memory", "caches", "ray tracer", "tasks"}
    assert all(found[n].mend for n in bad)
    capsys.readouterr()
    assert doctor.report() == 1 and "BAD numpy" in capsys.readouterr().out


def test_doctor_says_what_each_member_lacks_and_the_command_that_mends_it(monkeypatch, tmp_path):
    from lucibot import doctor

    for variable in ("RUNWAYML_API_SECRET", "KLING_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KLING_SECRET_KEY", "planted-0123456789")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("lucibot.core.needs.version", lambda n: None if n == "runwayml" else "1")
    monkeypatch.setattr(doctor, "_gpu_gib", lambda: 8.0)

    def found() -> dict:
        return {c.what: c for c in doctor.members()}

    runway, kling = found()["--video runway"], found()["--video kling"]
    assert runway.fine and not runway.there
    assert runway.mend.splitlines() == [
        "pip install 'lucibot[runway]'", "export RUNWAYML_API_SECRET=..."
    ]  # fmt: skip
    assert kling.found == "lacks the key KLING_ACCESS_KEY"
    weights = found()["--video diffusers"]
    assert "a GPU with 24 GiB (the one here has 8)" in weights.found
    assert "hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers" in weights.mend
    (tmp_path / "models--Wan-AI--Wan2.2-TI2V-5B-Diffusers/snapshots/a/vae").mkdir(parents=True)
    assert "hf download" not in found()["--video diffusers"].mend
    assert "storyboard, file" in found()["--video"].found
    assert "planted" not in "".join(c.found + c.mend for c in found().values())
    # Every member of a family with a choice is named, ready or not; a new one is there by itself.
    from lucibot.providers.video import VideoConfig
    from lucibot.store.configs import classes

    said = " ".join(f"{c.what} {c.found}" for c in doctor.members())
    assert all(f" {m.kind}" in said for m in classes(VideoConfig))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lucibot.cli import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'jax', 'genesis', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_commands_and_their_settings_import_nothing_heavy():
    """`lucibot run --help` reads every config; what the members need comes when they are created."""
    code = (
        "import sys, lucibot.commands, lucibot.sweep; "
        "print(*[m for m in ('torch', 'jax', 'genesis', 'numba', 'scipy', 'trimesh', 'mitsuba', 'av', "
        "'matplotlib', 'openai', 'httpx', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == []


def test_a_reader_that_leaves_is_no_traceback():
    command = f"{sys.executable} -m lucibot --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() in ("0", "141") and not done.stderr


def test_tasks_are_listed(capsys):
    status, text = say(capsys, "tasks", "list")
    assert status == 0
    assert "cut_dough" in text and "stack_cups" in text


def test_predicates_and_relations_are_explained(capsys):
    status, text = say(capsys, "tasks", "predicates")
    assert status == 0
    for words in ("at_rest (object, max_speed_m_s)", "nested", "moved", "`least`"):
        assert words in text


def test_a_video_without_pictures_stops_the_run_but_keeps_its_scene(capsys, tmp_path):
    sound = tmp_path / "sound.mp4"
    sound.write_bytes(b"not a video at all")
    status, text = say(
        capsys, "run", "cut_dough", "--video", str(sound), "--out", str(tmp_path / "runs"),
        "--scene.renderer", "raster",
    )  # fmt: skip
    assert status == 2 and "sound.mp4" in text and "Traceback" not in text
    (run,) = (tmp_path / "runs" / "cut_dough").iterdir()
    assert json.loads((run / "run.json").read_text())["seed"] == 0
    assert list(run.glob("10_scene/*/manifest.json"))
    assert not list(run.glob("20_imagine/*/manifest.json"))


def test_bench_lists_measures_and_compares(tmp_path, capsys):
    assert main(["bench", "ask_tell", "--repeats", "1", "--json"]) == 0
    out = capsys.readouterr().out
    values = {v["name"]: v["value"] for v in json.loads(out)["benchmarks"]["ask_tell"]["values"]}
    assert values["ask_tell.ours_over_evosax"] > 0
    earlier = tmp_path / "earlier.json"
    earlier.write_text(out)
    assert main(["bench", "ask_tell", "--repeats", "1", "--compare", str(earlier)]) == 0
    assert "of the earlier" in capsys.readouterr().out
    earlier.write_text("[]")
    assert main(["bench", "ask_tell", "--compare", str(earlier)]) == 2
    assert main(["bench", "nope"]) == 2 and "iou" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_one_clear_line(address):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lucibot[cluster]'")
    from lucibot.core.errors import UserError
    from lucibot.sim.cluster import RayFarm

    with pytest.raises(UserError, match="no Ray cluster answers"):
        RayFarm(address, device="cpu")


def test_a_signal_that_is_heard_while_garbage_is_collected_is_heard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import signal, sys, time
        from lucibot import cli

        class Left:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)

        def work(argv):
            try:
                Left()
                time.sleep(60)
            finally:
                print("unwound")

        cli.COMMANDS["doctor"] = work
        sys.exit(cli.main(["doctor"]))
        """)
    )
    done = subprocess.run([sys.executable, script], text=True, capture_output=True, timeout=30)
    assert done.returncode == 143 and done.stdout == "unwound\n"
    assert done.stderr == "lucibot: stopped\n"
