"""Chains: a task folder that begins where a run has ended, tries and retries, and going on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lucibot.chain import command as chains
from lucibot.chain.command import Link, Try, lines, run_chain
from lucibot.chain.derive import derive
from lucibot.chain.schema import StepSpec, read_chain
from lucibot.chain.surface import surface_of
from lucibot.cli import main
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import NoUsableVideo, RunFailed, UserError
from lucibot.core.geometry import matrix_np, pose_np
from lucibot.options import with_settings
from lucibot.pipeline import StageConsole
from lucibot.providers.video.base import NotTaken
from lucibot.services import Services
from lucibot.services.ledger import CapReached
from lucibot.sim.state import BodyState, FinalState, ParticleState
from lucibot.store.lock import InUse
from lucibot.task import Task, TaskSpec, load_task

CHAINS = Path(__file__).parents[1] / "docs/chains"
SIZE_M = 0.0078


def block(lower, upper) -> np.ndarray:
    """(N, 3) float32: a lattice of particles in a box."""
    axes = [np.arange(a + SIZE_M / 2, b, SIZE_M) for a, b in zip(lower, upper, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def halves(gap_m: float) -> np.ndarray:
    a = block((-0.08, -0.03, 0.014), (-0.02, 0.03, 0.055))
    return np.concatenate([a, a + np.float32([0.0624 + gap_m, 0, 0])])


def body(pose, joint: float = np.nan) -> BodyState:
    pose = np.asarray(pose, float)
    return BodyState(
        initial_pose=np.zeros(6), pose=pose, velocity=np.zeros(6), joint=np.asarray(joint)
    )


def matter(final: np.ndarray, initial: np.ndarray) -> ParticleState:
    corner = np.zeros(3, np.float32)
    return ParticleState(
        initial=initial, final=final, speed=np.zeros(len(final), np.float32),
        size_m=np.asarray(SIZE_M), lower_m=corner, upper_m=corner, reached_lower_m=corner,
        reached_upper_m=corner,
    )  # fmt: skip


def cut(gap_m: float = 0.006) -> FinalState:
    return FinalState(
        bodies={"knife": body([0.13, 0.05, 0.009, 1.5, 0.3, -0.4])},
        particles={"dough": matter(halves(gap_m), halves(0.0))},
    )


def derived(name: str, folder: Path, state: FinalState | None, step: int = 1):
    file = CHAINS / f"{name}.toml"
    chain = read_chain(file)
    return derive(load_task(chain.scene), chain.step[step], state=state, folder=folder, chain=file)


def test_bodies_and_particles_begin_where_they_ended(tmp_path):
    state = cut()
    task = derived("dough", tmp_path / "lay", state)
    knife, dough = task.object("knife"), task.object("dough")
    assert np.abs(knife.T_world_object - matrix_np(state.bodies["knife"].pose)).max() < 1e-9
    T, cloud = dough.T_world_object, task.cloud(dough)
    assert np.abs(cloud @ T[:3, :3].T + T[:3, 3] - state.particles["dough"].final).max() < 1e-6
    assert [o.name for o in task.actuators] == ["knife"] == [o.name for o in task.targets]
    assert "lay it down" in task.instruction and task.spec.success[1]["predicate"] == "pieces"
    # What they look like: two closed parts of the particles' volume, in the dough's own colours.
    mesh = task.mesh(dough)
    parts = mesh.split(only_watertight=True)
    assert len(parts) == 2 and mesh.is_watertight
    assert mesh.volume == pytest.approx(len(cloud) * SIZE_M**3, rel=0.1)
    assert derived("dough", tmp_path / "lay", state).digest == task.digest
    other = derived("dough", tmp_path / "other", cut(0.010))
    assert other.digest_of("simulation") != task.digest_of("simulation")


def test_a_joint_begins_with_the_value_at_which_it_was_left(tmp_path):
    scene = load_task("open_drawer")
    joint = scene.object("drawer").articulation
    where = joint.poses(np.array(0.21))
    task = derived("drawer", tmp_path / "shut", FinalState(
        bodies={"drawer": body(pose_np(where), 0.21)}, particles={}))  # fmt: skip
    now = task.object("drawer").articulation
    assert (now.lower, now.upper) == pytest.approx((-0.21, joint.upper - 0.21))
    assert np.abs(now.poses(np.array(-0.21)) - joint.T_world_object).max() < 1e-9
    # What is a little beyond its limit, as solvers leave it, is a value that it may have.
    beyond = derived("drawer", tmp_path / "b", FinalState(
        bodies={"drawer": body(pose_np(where), joint.upper + 1e-4)}, particles={}))  # fmt: skip
    assert beyond.object("drawer").articulation.upper == 0


def test_a_hinge_is_told_in_degrees(tmp_path):
    scene = load_task("open_door")
    (name,) = [o.name for o in scene.actuators]
    joint = scene.object(name).articulation
    step = StepSpec(name="shut", task="open_door")
    state = FinalState(bodies={o.name: body(pose_np(o.T_world_object), np.deg2rad(40) if o.name == name else
                               np.nan) for o in scene.objects}, particles={})  # fmt: skip
    task = derive(scene, step, state=state, folder=tmp_path / "shut", chain=CHAINS / "x.toml",
                  step_task=scene)  # fmt: skip
    assert task.object(name).articulation.lower == pytest.approx(joint.lower - np.deg2rad(40))
    home = task.object(name).articulation.poses(-np.deg2rad(40))
    assert np.abs(home - joint.T_world_object).max() < 1e-9


@pytest.mark.parametrize(("lower", "upper"), [(-100, 100), (-180, 180)])
def test_a_hinge_that_opens_both_ways_is_shut_over_more_than_half_a_turn(lower, upper, tmp_path):
    scene = load_task("open_door")
    spec = scene.spec.model_dump(mode="json", exclude_unset=True)
    (told,) = [o for o in spec["objects"] if "actuator" in o["roles"]]
    told["joint"] |= {"lower": lower, "upper": upper}
    scene = Task(scene.folder, TaskSpec.model_validate(spec), scene.instruction)
    state = FinalState(bodies={o.name: body(pose_np(o.T_world_object), np.deg2rad(upper + 0.01) if
                               o.name == told["name"] else np.nan) for o in scene.objects}, particles={})  # fmt: skip
    task = derive(scene, StepSpec(name="shut", task="open_door"), state=state, folder=tmp_path / "shut",
                  chain=CHAINS / "x.toml", step_task=scene)  # fmt: skip
    joint = task.object(told["name"]).articulation
    assert np.rad2deg([joint.lower, joint.upper]) == pytest.approx([lower - upper, 0], abs=0.02)
    for value in (-0.3, 0.7 * joint.lower, joint.lower + 0.05):
        assert joint.values(pose_np(joint.poses(np.array(value)))) == pytest.approx(value, abs=1e-6)


def test_the_first_step_is_the_scene_with_the_steps_roles(tmp_path):
    task = derived("dough", tmp_path / "first", None, step=1)
    scene = load_task("cut_dough")
    assert task.digest_of("scene") == scene.digest_of("scene")
    assert task.digest_of("roles") != scene.digest_of("roles")


def test_a_layer_of_particles_has_a_surface_and_crumbs_have_none():
    layer = block((0, 0, 0), (0.06, 0.04, SIZE_M))
    crumb = np.float32([[0.2, 0.2, 0.2]])
    mesh = surface_of(np.concatenate([layer, crumb]), SIZE_M)
    assert mesh.is_watertight and mesh.bounds[1].max() < 0.1
    assert mesh.volume == pytest.approx(len(layer) * SIZE_M**3, rel=0.3)
    with pytest.raises(ValueError, match="crumbs"):
        surface_of(crumb, SIZE_M)


class Steps:
    """Stands in for runs: says which tries succeed, and where they ended."""

    def __init__(self, monkeypatch, outcomes):
        self.outcomes, self.made = list(outcomes), []
        monkeypatch.setattr(chains, "_one", self.one)
        monkeypatch.setattr(chains, "_film", lambda links, out: None)
        monkeypatch.setattr(chains, "_replay", lambda done: done.run)

    def one(self, task, config, seed, out, console) -> Try:
        self.made.append((task.name, seed, task))
        run = out / "runs" / task.name / str(seed)
        run.mkdir(parents=True, exist_ok=True)
        cut().save(run / "final_state.npz")
        success = self.outcomes.pop(0)
        return Try(run=run, seed=seed, success=success, score=float(success), verdict="so")


def go(out: Path, file: Path = CHAINS / "dough.toml", config: RunConfig = PRESETS["quick"]):
    return run_chain(file, read_chain(file), config, seed=3, out=out, console=StageConsole())


def test_a_step_that_fails_is_tried_with_another_seed_and_the_next_begins_where_it_ended(
    tmp_path, monkeypatch
):
    steps = Steps(monkeypatch, [False, True, True])
    links = go(tmp_path)
    assert [(n, s) for n, s, _ in steps.made] == [("1_cut", 3), ("1_cut", 1003), ("2_lay", 3)]
    assert [len(k.tries) for k in links] == [2, 1]
    second = steps.made[-1][2]
    assert second.cloud(second.object("dough")) is not None
    assert (tmp_path / "chain.json").is_file()
    assert lines(links) == ["cut  2 tries  so", "lay  1 try  so"]


def test_a_step_that_fails_for_good_ends_the_chain_and_keeps_what_is_done(tmp_path, monkeypatch):
    Steps(monkeypatch, [True, False, False])
    with pytest.raises(RunFailed, match=r"step 2 \(lay\) did not succeed in 2 tries, the last: so"):
        go(tmp_path)
    assert '"success": true' in (tmp_path / "chain.json").read_text()
    assert Link(step="x", task=None, tries=()).done is None


def test_a_step_that_was_begun_is_gone_on_with_and_a_failure_is_one_line(tmp_path, monkeypatch):
    task = derived("drawer", tmp_path / "tasks/2_shut", None)
    went: list[Path] = []

    def stages(run, task, config, *, seed, console):
        went.append(run.path)
        raise NoUsableVideo("every video was rejected\nTraceback: and more")

    monkeypatch.setattr(chains, "run_stages", stages)
    tries = [chains._one(task, PRESETS["quick"], 3, tmp_path, StageConsole()) for _ in range(2)]
    assert went[0] == went[1] and [t.verdict for t in tries] == ["every video was rejected"] * 2
    chains._one(task, PRESETS["quick"], 4, tmp_path, StageConsole())
    assert went[2] != went[0]


def test_what_a_chain_may_cost_is_said_and_nothing_made_by_a_dry_run(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["chain", str(CHAINS / "dough.toml"), "--out", str(out), "--dry-run"]
    assert main([*words, "--video", "runway", "--video.candidates", "2", "--max-usd", "6"]) == 0
    said = capsys.readouterr().out
    for n in (1, 2):
        assert (
            f"step {n}, each try: imagine: up to 2 x videos of 5 s by runway gen4.5, 1.25 USD"
            in said
        )
    assert "up to 2 tries of each step: at most 10.00 USD; the cap for all of it is 6 USD" in said
    assert main(words) == 0 and capsys.readouterr().out == "nothing is paid\n" and not out.exists()


def test_a_chain_has_one_cap_for_all_its_runs(tmp_path, monkeypatch):
    caps: list[float | None] = []

    def stages(run, task, config, *, seed, console):
        caps.append(config.services.max_usd)
        if not (run.path / "services").exists():
            with Services(run.path / "services").ledger.call("video", usd=2.5):
                pass
        raise NoUsableVideo("every video was rejected")

    monkeypatch.setattr(chains, "run_stages", stages)
    for cap, seen in (("6", [6.0, 3.5]), ("4", [1.5, 1.5]), ("none", [None, None])):
        caps.clear()
        with pytest.raises(RunFailed, match="did not succeed in 2 tries"):
            go(tmp_path, config=with_settings(PRESETS["quick"], {"services.max-usd": cap}))
        assert caps == seen


@pytest.mark.parametrize("e", [
    CapReached("raise --max-usd to go on"), NotTaken("not bought"), InUse("in use by process 1"),
    RunFailed("candidate 0: job 7 is still running; it is kept"),
])  # fmt: skip
def test_what_keeps_a_run_from_its_end_is_answered_by_no_other_run(tmp_path, monkeypatch, e):
    begun: list[int] = []

    def stages(run, task, config, *, seed, console):
        begun.append(seed)
        raise e

    monkeypatch.setattr(chains, "run_stages", stages)
    with pytest.raises(type(e), match=str(e)):
        go(tmp_path)
    assert begun == [3]


@pytest.mark.parametrize(("text", "match"), [
    ("title = 'x'\nscene = 'cut_dough'\n", "step"),
    ("title = 'x'\nscene = 'cut_dugh'\n[[step]]\nname = 'a'\ntask = 'cut_dough'", "cut_dough"),
    ("title = 'x'\nscene = 'cut_dough'\n[[step]]\nname = 'a'\ninstruction = 'Cut.'", "needs actuators"),
    ("title = 'x'\nscene = 'cut_dough'\n[[step]]\nname = 'a'\ntask = 'lift_mochi'", "unknown object 'fork'"),
    ("title = 'x'\nscene = 'cut_dough'\n" + "[[step]]\nname = 'a'\ntask = 'cut_dough'\n" * 2, "two steps"),
    ("title = 'x'\nscene = 'cut_dough'\n[[step]]\nname = 'a'\ntask = 'cut_dough'\nstoryboard = 'no.toml'",
     "no such storyboard"),
])  # fmt: skip
def test_a_chain_that_does_not_fit_is_one_line_before_anything_is_run(
    tmp_path, capsys, text, match
):
    file = tmp_path / "chain.toml"
    file.write_text(text)
    status = main(["chain", str(file), "--out", str(tmp_path / "out")])
    line = capsys.readouterr().err.strip()
    assert status == 2 and "\n" not in line and match in line, line
    assert not (tmp_path / "out").exists()


def test_no_file_and_a_cloud_that_is_none_are_one_line(tmp_path, capsys):
    assert main(["chain", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err
    task = derived("dough", tmp_path / "lay", cut())
    file = task.path("assets/dough_begin.npy")
    for bad in (np.zeros((5, 2), np.float32), np.full((9, 3), np.nan), np.zeros((4, 3), int)):
        np.save(file, bad)
        with pytest.raises(UserError, match=r"dough_begin\.npy"):
            load_task(task.folder).cloud(task.object("dough"))


@pytest.mark.slow
def test_a_simulation_begins_from_the_particles_it_is_given(tmp_path):
    from lucibot.sim.scene import SimScene

    state = cut()
    scene = SimScene(derived("dough", tmp_path / "lay", state), n_envs=2)
    for _ in range(2):
        scene.reset()
        now = scene.particles("dough").cpu().numpy().copy()
        assert np.abs(now - state.particles["dough"].final[:, None]).max() < 1e-5
        for _ in range(5):
            scene.step()
    drift = np.abs(scene.particles("dough").cpu().numpy() - now).max()
    assert 0 < drift < 0.005
