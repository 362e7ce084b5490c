"""The systems that the paper compares with, as members of the objective: what each makes of rollouts whose
worth is known, and what is said where it cannot."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from werkzeug import Response

from lucibot.baselines import vlm_pref
from lucibot.baselines.avdc import FEWEST, dense_flow, follow, rigid_by_ransac
from lucibot.baselines.config import (
    REWARDS,
    AuthorsRewards,
    AvdcObjective,
    FileRewards,
    GoalImageObjective,
    NoisyPreference,
    ObjectiveConfig,
    T2RObjective,
    VlmPreference,
    VlmPrefObjective,
    VlmRewards,
    VlmRmObjective,
)
from lucibot.baselines.judge import Given, judged, with_verdict
from lucibot.baselines.picture import Painter
from lucibot.baselines.ranking import HIGHEST, Ranking, kendall_distance
from lucibot.baselines.t2r import TextToReward, described, known, unfenced
from lucibot.baselines.vlm_rm import VlmRm, regularised_reward, squared
from lucibot.config import OptimizeConfig, RunConfig
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.objective.config import VideoObjective
from lucibot.objective.evaluation import Evaluation
from lucibot.objective.home import BringHome
from lucibot.objective.objective import Picture, Seen
from lucibot.optimize.config import RandomStart, SearchConfig
from lucibot.optimize.parametrization import Parametrization
from lucibot.optimize.search import search
from lucibot.optimize.start import random_start, scene_bounds
from lucibot.providers.embedder import ClipEmbedder
from lucibot.record import start_run
from lucibot.sandbox import CodeFailed, sandbox, walls
from lucibot.services import Services, ServicesConfig, VlmConfig
from lucibot.services.estimate import Outlook
from lucibot.settings import configured
from lucibot.store.configs import classes, from_dict, to_dict
from lucibot.task import load_task, task_names

shut_in = pytest.mark.skipif(
    not walls(), reason="this machine has no seccomp (pyseccomp, libseccomp)"
)
H, W = 48, 64


@pytest.fixture(scope="module")
def task():
    return load_task("cut_dough")


@pytest.fixture
def given(task, tmp_path) -> Given:
    return Given(
        task=task, view=view(task), supervision=SimpleNamespace(camera=camera(task)), services=None,
        folder=tmp_path,
    )  # fmt: skip


def camera(task) -> Camera:
    return task.camera.resized(W, H)


def view(task) -> SceneView:
    """A grey scene in which the dough is a red square."""
    labels = np.zeros((H, W), np.uint8)
    labels[20:30, 20:30] = 2
    first = np.full((H, W, 3), 128, np.uint8)
    first[labels == 2] = (200, 40, 40)
    depth = np.where(labels == 2, 0.4, 0.5).astype(np.float32)
    return SceneView(
        camera=camera(task), names=("knife", "dough"), first_frame=first,
        background_frame=np.full((H, W, 3), 128, np.uint8), labels=labels, depth_m=depth,
        background_depth_m=np.full((H, W), 0.5, np.float32),
    )  # fmt: skip


def drawn(*left: int) -> dict[str, np.ndarray]:
    """What rollouts bring home in which the square's left side is at these columns."""
    label = np.zeros((len(left), H, W), np.uint8)
    for p, u in enumerate(left):
        label[p, 20:30, u : u + 10] = 2
    return {"label": label, "depth": np.where(label == 2, 0.4, 0.5).astype(np.float16)}


def rollouts(shown: dict[str, np.ndarray], loss=None) -> Evaluation:
    P = len(next(iter(shown.values())))
    loss = np.zeros(P, np.float32) if loss is None else np.asarray(loss, np.float32)
    return Evaluation(loss=loss, terms={}, failed=np.zeros(P, bool), shown=shown)


# The family ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", classes(ObjectiveConfig))
def test_a_member_is_chosen_by_its_name_and_found_again(member):
    config = configured(OptimizeConfig(), {"objective": member.kind})
    assert config.objective == member()
    assert from_dict(OptimizeConfig, to_dict(config)) == config
    assert member.START in ("video", "random")
    scored = config.objective.in_workers()
    assert isinstance(scored, VideoObjective | BringHome)
    # What goes to workers is of the objective's own layer.
    assert type(scored).__module__.startswith("lucibot.objective.")


def test_a_judge_has_the_say_and_what_failed_stays_behind():
    found = Evaluation(
        loss=np.array([1, np.inf, 3], np.float32), failed=np.array([False, True, False]),
        terms={"contact": np.array([1, np.nan, 0], np.float32)}, shown={"x": np.array([5, 6, 7])},
    )  # fmt: skip

    class Doubling:
        def __init__(self):
            self.weights = {"far": 2.0, "logged": 0.0}

        def terms(self, rollouts):
            assert rollouts.shown["x"].tolist() == [5, 7] and not rollouts.failed.any()
            return {"far": rollouts.shown["x"], "logged": -rollouts.shown["x"]}

    told = judged(lambda waypoints: found, Doubling())(np.zeros((3, 1, 1, 6)))
    assert told.loss.tolist() == [10, np.inf, 14] and told.failed.tolist() == [False, True, False]
    np.testing.assert_array_equal(told.terms["far"], [5, np.nan, 7])
    assert list(told.terms) == ["contact", "far", "logged"] and not told.shown
    assert with_verdict(found, None) is found
    none = replace(found, failed=np.ones(3, bool))
    assert np.isinf(with_verdict(none, Doubling()).loss).all()


def test_workers_bring_home_the_moment_that_is_asked_for(task):
    P, K = 2, 3
    state = SimpleNamespace(
        position={"knife": torch.arange(K * P * 3.0).view(K * P, 3)},
        quaternion={"knife": torch.zeros(K * P, 4)},
        particles={"dough": torch.arange(K * P * 1.0).view(1, K * P, 1).expand(5, -1, 3)},
    )
    label = torch.ones(P, 4, 4, dtype=torch.int32)
    picture = Picture(label=label, depth=label * 0.5)
    seen = Seen(
        contact=torch.zeros(K, P, 0, dtype=torch.bool), goal=picture, state=state,
        settled=replace(picture, label=label * 2), settled_state=state,
    )  # fmt: skip
    config = BringHome(moment="goal", picture=True, state=True)
    bringing = config.create(task, None, {}, "cpu")
    assert bringing.looks.goal and bringing.looks.state and not bringing.looks.settled
    shown = bringing.shown(seen)
    assert bringing.score(seen) == {} == config.term_weights()
    # Of the K moments the last.
    np.testing.assert_array_equal(shown["position/knife"][:, 0], [12, 15])
    assert shown["particles/dough"].shape == (P, 5, 3)
    assert shown["particles/dough"][:, 0, 0].tolist() == [4, 5]
    assert shown["label"].dtype == torch.uint8 and (shown["label"] == 1).all()
    settled = BringHome(moment="settled", picture=True).create(task, None, {}, "cpu")
    assert settled.looks.settled and not settled.looks.goal
    assert (settled.shown(seen)["label"] == 2).all()


# Where a search starts ----------------------------------------------------------------------------


def test_a_random_start_lies_within_the_scene_and_knows_nothing_of_the_video(task):
    held = np.ones((40, 1), bool)
    held[:5] = False
    estimate = np.random.default_rng(0).normal(size=(40, 1, 6)).astype(np.float32)
    config = RandomStart(room_m=0.05, step_m=0.08, turn_deg=30.0, step_deg=20.0)
    start = random_start(task, estimate, held, config, seed=3)
    low, high = scene_bounds(task, 0.05)
    assert (start[5:, 0, :3] >= low - 1e-6).all() and (start[5:, 0, :3] <= high + 1e-6).all()
    spread = np.ptp(start[5:, 0, :3], axis=0) / (high - low)
    assert (spread > 0.5).all(), "it gets around"
    assert np.abs(np.diff(start[5:, 0, :3], axis=0)).max() <= 0.08 + 1e-6
    np.testing.assert_array_equal(start[:5], estimate[:5])
    other = random_start(task, estimate * 0 + 7, held, config, seed=3)
    np.testing.assert_array_equal(start[5:], other[5:])
    assert not np.allclose(random_start(task, estimate, held, config, seed=4)[5:], start[5:])
    from scipy.spatial.transform import Rotation

    rest = Rotation.from_matrix(task.actuators[0].T_world_object[:3, :3])
    turned = (Rotation.from_rotvec(start[5:, 0, 3:]) * rest.inv()).magnitude()
    assert np.rad2deg(turned).max() <= 30.01 and np.rad2deg(turned).max() > 15


# Pictures, and CLIP -------------------------------------------------------------------------------


def test_what_has_not_moved_looks_as_it_did_and_what_has_is_painted(task):
    painter = Painter(view(task), camera(task))
    shown = drawn(20, 40)
    same, moved = painter.paint(shown["label"], shown["depth"])
    np.testing.assert_array_equal(same[22:28, 22:28], view(task).first_frame[22:28, 22:28])
    assert (same[:, 45:] == 128).all()
    red = moved[22:28, 42:48].reshape(-1, 3).mean(0)
    assert red[0] > 1.5 * red[1:].max(), "it has its own colour"
    assert np.abs(moved[22:28, 22:28].astype(int) - 128).max() < 3, "and where it was is empty"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """CLIP's own classes, small, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [".", ",", ":"]
    vocab = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocab)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(path).save_pretrained(path)
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = CLIPModel(CLIPConfig(
        vision_config=dict(small, image_size=32, patch_size=8),
        text_config=dict(small, vocab_size=len(vocab), max_position_embeddings=16, bos_token_id=0,
                         eos_token_id=1, pad_token_id=1),
        projection_dim=12,
    ))  # fmt: skip
    model.save_pretrained(path)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(path)
    return path


def test_the_regularised_reward_is_that_of_its_authors():
    rng = np.random.default_rng(0)
    s, g, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(3, 5, 8)))
    g, b = g[0], b[0]
    np.testing.assert_allclose(regularised_reward(s, g, b, 0.0), s @ g, atol=1e-12)
    # With all of the projection only the place between baseline and goal counts.
    line = g - b
    beside = rng.normal(size=8)
    beside -= (beside @ line) / (line @ line) * line
    whole = regularised_reward(s, g, b, 1.0)
    np.testing.assert_allclose(regularised_reward(s + beside, g, b, 1.0), whole, atol=1e-12)
    along = np.stack([b, (b + g) / 2, g])
    assert np.diff(regularised_reward(along, g, b, 1.0)).min() > 0
    assert regularised_reward(g[None], g, b, 0.7)[0] == pytest.approx(1.0)


def test_clip_scores_rollouts_by_their_pictures(given, clip):
    embedder = ClipEmbedder(model=str(clip), device="cpu")
    config = VlmRmObjective(embedder=embedder, goal="two halves", baseline="one block", alpha=0.5)
    judge = VlmRm(config, given)
    shown = drawn(20, 40, 20)
    found = judge.terms(rollouts(shown))["negative_reward"]
    assert found.shape == (3,) and found[0] == found[2] != found[1]
    pictures = Painter(given.view, given.supervision.camera).paint(shown["label"], shown["depth"])
    own = CLIPModel.from_pretrained(clip)
    tokens = CLIPTokenizer.from_pretrained(clip)(
        ["two halves", "one block"],
        padding=True,
        truncation=True,
        max_length=16,
        return_tensors="pt",
    )
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(
        list(squared(pictures)), return_tensors="pt"
    )
    with torch.no_grad():
        text = own.get_text_features(**tokens).pooler_output.numpy().astype(float)
        image = own.get_image_features(**pixels).pooler_output.numpy().astype(float)
    text, image = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (text, image))
    np.testing.assert_allclose(-found, regularised_reward(image, *text, 0.5), atol=1e-5)


def test_clip_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"embedder\.model"):
        VlmRmObjective(embedder=ClipEmbedder(model=str(tmp_path / "none"))).ensure()


# Text to reward -----------------------------------------------------------------------------------


def state(task, P=2) -> dict[str, np.ndarray]:
    """The scene as it begins, P times."""
    from scipy.spatial.transform import Rotation

    out = {}
    for o in task.objects:
        T, mesh = o.T_world_object, task.mesh(o)
        if o.is_rigid:
            q = Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
            out[f"position/{o.name}"] = np.tile(T[:3, 3], (P, 1))
            out[f"quaternion/{o.name}"] = np.tile(q, (P, 1))
        else:
            points = mesh.sample(400, seed=0) @ T[:3, :3].T + T[:3, 3]
            out[f"particles/{o.name}"] = np.tile(points, (P, 1, 1))
    return out


def done(name: str, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rollout 1 as a person would leave the scene, roughly."""
    s = {n: x.copy() for n, x in start.items()}
    if name == "cut_dough":
        dough = s["particles/dough"][1]
        dough[:, 0] += np.where(dough[:, 0] > dough[:, 0].mean(), 0.02, -0.02)
    elif name == "hammer_peg":
        s["position/peg"][1, 2] -= 0.03
    elif name == "lift_mochi":
        s["particles/brown_mochi"][1, :, 2] += 0.08
        s["position/fork"][1] = s["particles/brown_mochi"][1].mean(0)
    elif name in ("open_door", "open_drawer"):
        o = load_task(name).actuators[0]
        from lucibot.core.geometry import pose_np

        far = o.articulation.upper if o.articulation.upper > 0 else o.articulation.lower
        pose = pose_np(o.articulation.poses(np.array(far)))
        from scipy.spatial.transform import Rotation

        s[f"position/{o.name}"][1] = pose[:3]
        s[f"quaternion/{o.name}"][1] = Rotation.from_rotvec(pose[3:]).as_quat(scalar_first=True)
    elif name == "pour_liquid":
        liquid = s["particles/liquid"][1]
        s["particles/liquid"][1] = (liquid - liquid.mean(0)) * 0.4 + [0.110, -0.02, 0.03]
    elif name == "rubber_band":
        band = s["particles/band"][1]
        s["particles/band"][1] = (band - band.mean(0)) * [1.6, 0.7, 1] + [0.027, -0.088, 0.02]
    elif name == "scoop_sand":
        s["position/spoon"][1] = [-0.02, 0, 0.12]
        s["particles/sand"][1, :60] = [0.0, 0.0, 0.125]
    elif name == "spread_butter":
        butter = s["particles/butter"][1]
        s["particles/butter"][1] = (butter - butter.mean(0)) * [2.2, 2.2, 0.2] + [-0.045, 0, 0.024]
    elif name == "stack_cups":
        s["position/yellow_cup"][1] = s["position/red_cup"][1] + [0, 0, 0.02]
        s["quaternion/yellow_cup"][1] = [1, 0, 0, 0]
    return s


def test_there_are_rewards_by_the_authors_for_every_task_and_they_say_so():
    assert sorted(p.stem for p in REWARDS.glob("*.py")) == sorted(task_names())
    for path in REWARDS.glob("*.py"):
        text = path.read_text()
        assert "no model wrote it" in text.splitlines()[0]
        assert "import" not in text and "success" in text.splitlines()[1]


@shut_in
@pytest.mark.parametrize("name", sorted(task_names()))
def test_a_reward_by_the_authors_is_higher_where_the_task_is_done(name, tmp_path):
    task = load_task(name)
    given = Given(task=task, view=None, supervision=None, services=None, folder=tmp_path)
    judge = TextToReward(T2RObjective(writer=AuthorsRewards()), given)
    found = judge.terms(rollouts(done(name, state(task))))["negative_reward"]
    assert np.isfinite(found).all() and found[1] < found[0] - 0.005
    assert (tmp_path / "reward.py").read_text() == judge.code


class Writer:
    """Stands for the client: answers what it is told to, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    @property
    def vlm(self):
        return self

    def ask(self, answer, **told):
        self.asked.append(told)
        said = self.answers.pop(0)
        return answer(**said) if isinstance(said, dict) else answer(plan="Measure.", code=said)


GOOD = "def reward(scene):\n    return -scene.position('knife')[2]"
FENCED = f"```python\n{GOOD}\n```"
BAD = "def reward(scene):\n    return scene.position('fork')[2]"


@shut_in
def test_a_model_writes_the_code_and_may_mend_it_once(given, task):
    services = Writer(BAD, FENCED)
    given = replace(given, services=services)
    config = T2RObjective(writer=VlmRewards(model="some"))
    judge = TextToReward(config, given)
    found = judge.terms(rollouts(state(task)))["negative_reward"]
    knife = task.object("knife").T_world_object[2, 3]
    np.testing.assert_allclose(found, [knife, knife], atol=1e-6)
    first, second = services.asked
    assert "scene.particles(NAME)" in first["instructions"]
    for name in ("knife", "dough", "board"):
        assert f"- {name}: " in first["question"]
    assert "no position of 'fork'" in second["question"] and BAD in second["question"]
    # Who resumes asks nobody: the code that was last run is kept.
    again = TextToReward(config, replace(given, services=Writer()))
    assert again.code == unfenced(FENCED)
    with pytest.raises(CodeFailed, match="no position of 'fork'") as e:
        bad = replace(given, services=Writer(BAD, BAD), folder=given.folder / "other")
        bad.folder.mkdir()
        TextToReward(config, bad).terms(rollouts(state(task)))
    assert "\n" not in str(e.value)


@shut_in
def test_a_search_whose_code_is_mended_late_begins_anew_with_the_new_code(given, task, tmp_path):
    first = ("def reward(scene):\n    x, y, z = scene.position('knife')\n"
             "    return 100 - x if y < 2 else math.nan\n")  # fmt: skip
    second = "def reward(scene):\n    return 1 - abs(scene.position('knife')[0] - 0.3)\n"
    calls: list[int] = []

    def evaluate(waypoints: np.ndarray) -> Evaluation:
        """The knife ends at its waypoint; its y says how often it was asked."""
        shown = state(task, len(waypoints))
        shown["position/knife"][:, 0] = waypoints[:, 0, 0, 0]
        shown["position/knife"][:, 1] = len(calls)
        calls.append(len(waypoints))
        return rollouts(shown)

    given = replace(given, services=Writer(first, second))
    config = T2RObjective(writer=VlmRewards(model="some"))
    parametrization = Parametrization(
        start=np.zeros((1, 1, 6)), free=np.ones((1, 1), bool), sigma_position_m=0.1, sigma_rotation_rad=0.1,
        correlation=0.0,
    )  # fmt: skip
    found = search(
        judged(evaluate, TextToReward(config, given)), parametrization,
        SearchConfig(population=4, generations=3, patience=0), seed=0, checkpoints=tmp_path / "kept",
    )  # fmt: skip
    assert len(calls) == 3 + 3
    for h in found.history:
        np.testing.assert_allclose(h["loss"], abs(h["waypoints"][:, 0, 0, 0] - 0.3) - 1, atol=1e-6)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert (tmp_path / "reward.py").read_text() == second


@shut_in
@pytest.mark.parametrize("code, words", [("def reward(scene) 3", "line 1: SyntaxError"),
                                         ("def reward(scene): return [1, 2]", "shape"),
                                         ("def reward(scene): return math.nan", "nan")])  # fmt: skip
def test_code_of_a_file_that_fails_is_one_line(given, task, tmp_path, code, words):
    path = tmp_path / "mine.py"
    path.write_text(code)
    judge = TextToReward(T2RObjective(writer=FileRewards(path=path)), given)
    with pytest.raises(CodeFailed, match=words) as e:
        judge.terms(rollouts(state(task)))
    assert "\n" not in str(e.value)


def test_what_t2r_lacks_is_said_before_a_run(given, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "_runs", lambda within: not within)
    with pytest.raises(UserError, match="--trust-reward-code"):
        T2RObjective().ensure()
    T2RObjective(trust_reward_code=True).ensure()
    with pytest.raises(UserError, match="no such file"):
        T2RObjective(writer=FileRewards(path=tmp_path / "none.py")).ensure()
    other = SimpleNamespace(name="mine", objects=[], spec=SimpleNamespace(background=[]))
    with pytest.raises(UserError, match="nobody has written reward code for task 'mine'"):
        TextToReward(T2RObjective(trust_reward_code=True), replace(given, task=other))


def test_a_model_is_told_every_object_with_its_box_and_nothing_of_success():
    for name in task_names():
        task = load_task(name)
        text = described(task)
        assert len(text.splitlines()) == len(task.objects) + len(task.spec.background)
        assert len(known(task)) == 2 * len(text.splitlines())
        assert "success" not in text


# AVDC ---------------------------------------------------------------------------------------------

SQUARE_M = 0.12


def square_video(task, motions):
    """A textured square on a textured ground, seen as it moves: frames, masks, depth, points."""
    cam = task.camera.resized(320, 240)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (240, 320)).astype(np.float32), (0, 0), 2)
    ground = cv2.normalize(noise, None, 60, 200, cv2.NORM_MINMAX)
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (200, 200)).astype(np.float32), (0, 0), 2)
    texture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * SQUARE_M / 2
    corners[:, 2] += 0.05
    frames, masks, depths = [], [], []
    for T in motions:
        world = corners @ T[:3, :3].T + T[:3, 3]
        uv, _ = cam.project(world)
        Hm = cv2.getPerspectiveTransform(
            np.float32([[0, 0], [199, 0], [199, 199], [0, 199]]), uv.astype(np.float32) - 0.5
        )
        mask = cv2.warpPerspective(np.ones_like(texture), Hm, (320, 240)) > 0.5
        image = np.where(mask, cv2.warpPerspective(texture, Hm, (320, 240)), ground)
        frames.append(image.astype(np.uint8))
        masks.append(mask)
        normal, at = T[:3, 2], world[0]
        eye, rays = cam.T_world_cam[:3, 3], cam.rays
        depth = np.where(mask, ((at - eye) @ normal) / (rays @ normal), 1.0)
        depths.append(depth.astype(np.float32))
    first = cv2.erode(masks[0].astype(np.uint8), np.ones((5, 5))) > 0
    points = cam.unproject(depths[0].astype(float))[first]
    dis = dense_flow()
    flows = [(dis.calc(a, b, None), dis.calc(b, a, None)) for a, b in itertools.pairwise(frames)]
    return cam, points, flows, np.stack(masks), np.stack(depths)


@pytest.mark.parametrize("with_depth", [False, True])
def test_a_moving_square_is_followed_by_flow(task, with_depth):
    from scipy.spatial.transform import Rotation

    motions = np.tile(np.eye(4), (9, 1, 1))
    for t in range(9):
        motions[t, :3, :3] = Rotation.from_euler("z", 2.0 * t, degrees=True).as_matrix()
        motions[t, :3, 3] = np.array([0.004, 0.002, 0.002]) * t
    cam, points, flows, masks, depth = square_video(task, motions)
    found = follow(
        points, flows, masks, cam, AvdcObjective(), depth_m=depth if with_depth else None
    )
    off = np.linalg.norm(found[:, :3, 3] - motions[:, :3, 3], axis=1)
    turn = Rotation.from_matrix(
        found[:, :3, :3] @ motions[:, :3, :3].transpose(0, 2, 1)
    ).magnitude()
    assert off.max() < 0.003 and np.rad2deg(turn.max()) < 2.0
    assert np.linalg.norm(motions[-1, :3, 3]) > 0.035, "it has moved much farther than that"
    # What is hidden stands still.
    hidden = follow(points, flows, np.zeros_like(masks), cam, AvdcObjective())
    np.testing.assert_array_equal(hidden[-1], np.eye(4))
    # So does what is out of sight as the video begins.
    unseen = follow(points[:0], flows, masks, cam, AvdcObjective())
    np.testing.assert_array_equal(unseen, np.tile(np.eye(4), (len(masks), 1, 1)))


def test_ransac_finds_the_motion_that_most_points_agree_on():
    rng = np.random.default_rng(0)
    from scipy.spatial.transform import Rotation

    R, t = Rotation.from_rotvec([0.1, -0.2, 0.3]).as_matrix(), np.array([0.1, 0, -0.05])
    a = rng.uniform(-0.1, 0.1, (200, 3))
    b = a @ R.T + t + rng.normal(size=a.shape) * 1e-4
    b[:80] += rng.uniform(-0.3, 0.3, (80, 3))
    T = rigid_by_ransac(a, b, within_m=0.002, trials=256, rng=rng)
    np.testing.assert_allclose(T[:3, :3], R, atol=2e-3)
    np.testing.assert_allclose(T[:3, 3], t, atol=2e-4)
    assert rigid_by_ransac(a[: FEWEST - 1], b[: FEWEST - 1], within_m=1, trials=9, rng=rng) is None


def test_avdc_leaves_out_what_is_not_rigid(given):
    with pytest.raises(UserError, match="'band' of task 'rubber_band' is not"):
        AvdcObjective().followed(replace(given, task=load_task("rubber_band")))


def test_an_objective_that_does_not_suit_a_task_is_said_before_a_run(tmp_path, small_task):
    mine = small_task("cut_dough", tmp_path / "mine", width=160, height=120, fps=10)
    for objective, task, words in (
        (AvdcObjective(), load_task("rubber_band"), "follows rigid actuators"),
        (T2RObjective(), mine, "nobody has written reward code for task 'mine'"),
    ):
        config = RunConfig(optimize=OptimizeConfig(objective=objective))
        with pytest.raises(UserError, match=words):
            start_run(task, config, seed=0, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# Preferences --------------------------------------------------------------------------------------


def test_a_judge_that_never_errs_gives_the_true_order():
    truth = np.random.default_rng(0).normal(size=200)
    ranking = Ranking(better=lambda a, b: truth[a] > truth[b])
    first = ranking.add(32, np.random.default_rng(1))
    assert sorted(first) == pytest.approx(np.linspace(0, HIGHEST, 32))
    sort = ranking.asked
    assert sort < 32 * 31 / 2 / 1.5
    ranking.add(168, np.random.default_rng(2))
    assert ranking.order == np.argsort(truth).tolist()
    assert ranking.asked - sort <= 168 * 8
    assert (np.diff(np.array(ranking.scores)[ranking.order]) >= 0).all()
    assert kendall_distance(ranking.order, truth) == 0
    assert kendall_distance(ranking.order[::-1], truth) == 1


def test_after_a_single_sample_the_others_are_told_apart():
    quality = [0.5, 0.9, 0.1, 0.99, 0.7]
    ranking = Ranking(better=lambda a, b: quality[a] > quality[b])
    scores = [*ranking.add(1, np.random.default_rng(0)), *ranking.add(4, np.random.default_rng(1))]
    assert np.argsort(scores).tolist() == np.argsort(quality).tolist() == ranking.order
    assert np.diff(sorted(scores)).min() > 1


def test_the_more_a_judge_errs_the_less_its_order_is_worth(given):
    off = []
    for rate in (0.0, 0.1, 0.3):
        config = VlmPrefObjective(preference=NoisyPreference(error_rate=rate))
        judge = vlm_pref.VlmPref(config, replace(given, folder=given.folder / f"{rate}"))
        judge._given.folder.mkdir()
        losses = np.linspace(0, 1, 36)
        shown = drawn(*range(4, 40))
        found = judge.terms(rollouts(shown, losses))["negative_score"]
        off.append(kendall_distance(judge.ranking.order, -losses))
        assert found.shape == (36,)
    assert off[0] == 0 < off[1] < off[2]


def test_a_ranking_that_was_stopped_goes_on_and_the_replay_finds_its_own(given):
    config = VlmPrefObjective(preference=NoisyPreference(error_rate=0.2))
    first, second = rollouts(drawn(4, 8, 12, 16), [3, 1, 2, 0]), rollouts(drawn(6, 10), [1.5, 0.5])
    whole = vlm_pref.VlmPref(config, given)
    told = [whole.terms(x)["negative_score"] for x in (first, second)]
    asked = whole.ranking.asked
    stopped = replace(given, folder=given.folder / "stopped")
    stopped.folder.mkdir()
    vlm_pref.VlmPref(config, stopped).terms(first)
    again = vlm_pref.VlmPref(config, stopped)
    np.testing.assert_array_equal(again.terms(second)["negative_score"], told[1])
    assert again.ranking.asked == asked
    # The same picture, as the replay has it, is asked about no more.
    np.testing.assert_array_equal(again.terms(rollouts(drawn(8)))["negative_score"], told[0][1:2])
    assert again.ranking.asked == asked


def test_a_model_is_shown_two_pictures_and_an_answer_that_is_none_loses_nothing(given):
    def says(nearer):
        return {"difference": "One is farther right.", "nearer": nearer}

    class Silent(Writer):
        def ask(self, answer, **told):
            if not self.answers:
                raise RunFailed("preference (some): twice no valid answer")
            return super().ask(answer, **told)

    services = Silent(says("first"))
    config = VlmPrefObjective(preference=VlmPreference(model="some"))
    judge = vlm_pref.VlmPref(config, replace(given, services=services))
    judge.terms(rollouts(drawn(20, 40)))
    (asked,) = services.asked
    assert [p.shape for p in asked["pictures"]] == [(H, W, 3)] * 2
    assert not np.array_equal(*asked["pictures"]) and len(asked["captions"]) == 2
    kept = (list(judge.ranking.order), list(judge.ranking.scores))
    with pytest.raises(RunFailed, match="no valid answer"):
        judge.terms(rollouts(drawn(30)))
    assert (judge.ranking.order, judge.ranking.scores) == kept and len(judge.pictures) == 2
    again = vlm_pref.VlmPref(config, replace(given, services=services))
    assert (again.ranking.order, again.ranking.scores) == kept


def test_the_bench_of_preferences_shows_a_judge_that_errs_by_its_contradictions(tmp_path):
    from lucibot.benchmark.command import load
    from lucibot.task import checkout_folder

    bench = load("preferences", checkout_folder("bench") / "preferences" / "measure.py")
    found = {r: [bench.measured(r, s, sizes=(16, 64, 128), first=64) for s in range(4)]
             for r in (0.0, 0.1, 0.3)}  # fmt: skip
    last = {r: np.mean([s[-1]["inconsistent"] for s in seeds]) for r, seeds in found.items()}
    assert last[0.0] == 0 < last[0.1] < last[0.3]
    first = np.mean([s[0]["inconsistent"] for s in found[0.1]])
    assert first < last[0.1], "it grows with the number of samples"
    assert all(s[-1]["best"] == 1 and s[-1]["wrong"] == 0 for s in found[0.0])


def test_what_preferences_may_ask_for_is_said_before_and_never_more(task):
    config = VlmPrefObjective(preference=VlmPreference(model="gpt-4o"))
    outlook = Outlook(task=task, videos=1, services=ServicesConfig(), population=16, generations=4)
    (planned,) = config.planned(outlook)
    truth = np.random.default_rng(0).normal(size=64)
    for better in (lambda a, b: truth[a] > truth[b], lambda a, b: True, lambda a, b: a > b):
        ranking = Ranking(better=better)
        for _ in range(4):
            ranking.add(16, np.random.default_rng(1))
        assert ranking.asked <= planned.calls
    assert planned.usd_each > 0
    assert not VlmPrefObjective(preference=NoisyPreference()).planned(outlook)


def test_a_goal_image_has_the_goals_terms_alone():
    weights = GoalImageObjective().in_workers().term_weights()
    said = {n for n, w in weights.items() if w}
    assert {"target_iou", "target_chamfer", "part_iou", "around"} <= said
    assert not said & {"actuator_iou", "actuator_chamfer", "contact", "affordance_reach"}


def test_where_a_picture_shows_no_hand_everything_may_be_moved():
    @dataclass(frozen=True)
    class Held:
        held: np.ndarray

    member = GoalImageObjective()
    assert member.supervised(Held(np.zeros((3, 2), bool))).held.all()
    seen = Held(np.array([[True, False], [False, False]]))
    assert member.supervised(seen) is seen
    assert VideoObjective().supervised(seen) is seen


@pytest.mark.slow
def test_a_simulation_brings_home_what_it_ended_in_and_scores_the_same_beside():
    from lucibot.benchmark.workload import candidates, supervision
    from lucibot.sim.evaluator import Evaluator
    from lucibot.sim.scene import SimScene

    scene = SimScene(load_task("hammer_peg"), n_envs=2)
    seen = supervision(scene, keyframes=3)
    # Not a whole number of batches: what fills the last one is not brought home.
    tried = candidates(scene.task, 3, keyframes=3)
    plain = Evaluator(scene, seen, VideoObjective()).evaluate(tried)
    config = BringHome(moment="settled", picture=True, state=True, beside=VideoObjective())
    found, states = Evaluator(scene, seen, config).evaluate_with_states(tried)
    np.testing.assert_array_equal(found.loss, plain.loss)
    assert not found.failed.any() and not plain.shown
    assert found.shown["label"].shape == (3, seen.camera.height, seen.camera.width)
    for i, state in enumerate(states):
        for name in ("hammer", "peg"):
            np.testing.assert_allclose(
                found.shown[f"position/{name}"][i], state.bodies[name].pose[:3], atol=1e-6
            )
    goal = Evaluator(scene, seen, replace(config, moment="goal", beside=None)).evaluate(tried)
    assert (goal.loss == 0).all() and set(goal.shown) == set(found.shown)
    moved = goal.shown["position/hammer"] - found.shown["position/hammer"]
    assert np.linalg.norm(moved, axis=1).max() > 1e-3, "let go, it comes to rest elsewhere"


def test_by_the_real_client_a_model_prefers_and_one_that_answers_something_else_is_one_line(
    given, httpserver, monkeypatch
):
    pytest.importorskip("openai", reason="openai is not installed: pip install 'lucibot[vlm]'")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-4711-secret")
    says = {"nearer": "second"}

    def answer(request):
        text = json.dumps({"difference": "One lies farther right.", **says})
        message = {"role": "assistant", "content": text}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}}  # fmt: skip
        return Response(json.dumps(body), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    vlm = VlmConfig(base_url=httpserver.url_for("/v1"), first_wait_s=0.0)
    services = Services(given.folder / "services", ServicesConfig(vlm=vlm))
    config = VlmPrefObjective(preference=VlmPreference(model="m"))
    judge = vlm_pref.VlmPref(config, replace(given, services=services))
    found = judge.terms(rollouts(drawn(4, 14, 24)))["negative_score"]
    assert sorted(-found) == [0, 25, 50] and judge.ranking.asked == len(httpserver.log)
    says["nearer"] = "neither"
    before = len(httpserver.log)
    with pytest.raises(RunFailed, match="twice no valid answer") as e:
        judge.terms(rollouts(drawn(34)))
    assert len(httpserver.log) == before + 2 and "\n" not in str(e.value)
    # What was ranked is kept, and asked about no more.
    again = vlm_pref.VlmPref(config, replace(given, services=services))
    np.testing.assert_array_equal(again.terms(rollouts(drawn(4, 14, 24)))["negative_score"], found)
    assert len(httpserver.log) == before + 2
