"""Answers read from masks, poses and depth alone, where the paper asks a VLM (section 3.3)."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.answers import Answers
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.answerer.config import PixelAnswerer
from lucibot.task import Task
from lucibot.vision.around import Posts, around_pairs
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.grid import Grid
from lucibot.vision.rest import (
    drop_short,
    fill_gaps,
    picture_points,
    runs,
    touched_by_hand,
)
from lucibot.vision.touching import contact_pairs, nearest_m, posed, surface_points
from lucibot.vision.trajectory import Trajectory


class AnswerByPixels:
    def __init__(self, config: PixelAnswerer):
        self.config = config

    def answer(self, task: Task, view: SceneView, video: Video, tracks: Tracks,
               poses: np.ndarray, depth_of) -> Answers:  # fmt: skip
        """See `Answerer`.

        Raises:
            UserError: no hand ever touches an object and none ever moves: nothing is done.
        """
        c = self.config
        grid = Grid.from_tracks(view, tracks, c.width, hand_margin=0)
        count, frames = len(task.objects), len(grid)
        steady = max(2, round(c.touch_s * video.fps))
        masks = np.stack([grid.masks(i) for i in range(count)], 1)
        touched = touched_by_hand(masks, grid.hand, tracks.lost, margin_px=max(1, c.width // 200))
        touched = np.stack(
            [drop_short(fill_gaps(touched[:, i], 2 * steady), steady) for i in range(count)], 1
        )
        shift = self._shift(task, grid, poses, masks)
        moving = shift > np.where([o.is_rigid for o in task.objects], c.still_px, c.still_share)
        touched = self._gripped(task, grid, poses, touched, moving, video.fps)
        held = self._held(task, touched, shift, moving, steady)
        first, why_first = self._first_contact(task, touched, held, moving)
        goal, why_goal = self._goal(task, grid, masks, moving, first, steady)
        pairs = contact_pairs(task)
        contact = self._contact(task, grid, masks, poses, tracks, pairs, depth_of, steady)
        reasons = {"first_contact": why_first, "goal": why_goal}
        for k, o in enumerate(task.actuators):
            spans = ", ".join(f"{a} to {b - 1}" for a, b in runs(held[:, k]))
            reasons[f"held {o.name}"] = (
                f"A hand lies on or beside {o.name} while it moves: frames {spans}."
                if spans else f"No hand stays on {o.name} while it moves."
            )  # fmt: skip
        for k, (a, b) in enumerate(pairs):
            n = int(contact[:, k].sum())
            when = f"from frame {int(np.argmax(contact[:, k]))} on, in {n} frames" if n else "never"
            reasons[f"contact {a}, {b}"] = (
                f"The surfaces of {a} and {b} come within {1000 * task.spec.contact_m:.0f} mm {when}."
            )
        around, seen_around = self._around(task, view, tracks, goal)
        for (a, b), yes in zip(around, seen_around, strict=True):
            if yes:
                reasons[f"around {a}, {b}"] = (
                    f"What is seen of {a} goes past {b} in front and on both sides, and closes behind it."
                )
        assert frames == len(contact)
        return Answers(
            first_contact=first, goal=goal, held=held, contact_pairs=pairs, contact=contact,
            around_pairs=around, around=seen_around,
            reasons=reasons,
        )  # fmt: skip

    def _around(self, task, view, tracks: Tracks, goal: int):
        """`Answers.around_pairs` and `Answers.around`, by the majority of the frames about the goal."""
        pairs = around_pairs(task)
        posts = Posts(task, view.camera, {b for _, b in pairs})
        out = np.zeros(len(pairs), bool)
        for k, (a, b) in enumerate(pairs):
            masks = tracks.masks[max(0, goal - 2) : goal + 3, task.label(a) - 1]
            out[k] = np.mean([posts.goes_around(m, b) for m in masks]) > 0.5
        return pairs, out

    def _gripped(self, task, grid, poses, touched, moving, fps) -> np.ndarray:
        """(T, N) bool: `touched`, cut down to the time from grip to release.

        A hand comes over an object before it takes it, and leaves after it has let go. While it
        holds, either the object moves, or the hand rests on it: its layer over the object's
        silhouette hardly changes within a tenth of a second. A run without either is kept whole.
        """
        c, out = self.config, touched.copy()
        span = max(1, round(0.1 * fps))
        steady = max(2, round(c.touch_s * fps))
        kernel = np.ones((9, 9), np.uint8)
        for i, o in enumerate(task.objects):
            if not o.is_rigid:
                continue
            mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
            for a, b in runs(fill_gaps(touched[:, i], 5 * steady)):
                T = Trajectory.from_poses(poses[a:b, i].astype(float), mesh.anchor_m).T_world_object
                rests = np.zeros(b - a, bool)
                for k in range(b - a):
                    drawn = np.isfinite(draw_depth(mesh, T[k : k + 1], grid.camera)[0])
                    near = cv2.dilate(drawn.astype(np.uint8), kernel) > 0
                    now = grid.hand[a + k] & near
                    later = grid.hand[min(a + k + span, len(grid) - 1)] & near
                    changed = (now ^ later).sum() / max(1, (now | later).sum())
                    rests[k] = (now & drawn).sum() >= c.grip_px and changed < c.grip_change
                grip = np.flatnonzero(drop_short(rests, steady) | moving[a:b, i])
                if len(grip):
                    out[a : a + grip[0], i] = False
                    out[a + grip[-1] + 1 : b, i] = False
        return out

    def _shift(self, task: Task, grid: Grid, poses: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """(T, N) how much each object changes in the picture around a frame: pixels for rigid
        objects, share of the mask for deformables."""
        frames, count = masks.shape[:2]
        out = np.zeros((frames, count))
        span = 2
        before = np.maximum(np.arange(frames) - span, 0)
        after = np.minimum(np.arange(frames) + span, frames - 1)
        for i, o in enumerate(task.objects):
            if o.is_rigid:
                mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
                p = picture_points(
                    mesh, Trajectory.from_poses(poses[:, i].astype(float), mesh.anchor_m),
                    grid.camera,
                )  # fmt: skip
                # The common shift: spin of a round thing about its axis is not seen.
                out[:, i] = np.linalg.norm((p[after] - p[before]).mean(1), axis=-1)
                continue
            for t in range(frames):
                a, b = before[t], after[t]
                open_ = (grid.label[a] == 0) | masks[a, i]
                open_ &= (grid.label[b] == 0) | masks[b, i]
                area = max(1, int(masks[a, i].sum()))
                out[t, i] = ((masks[a, i] ^ masks[b, i]) & open_).sum() / area
        return out

    def _held(self, task, touched, shift, moving, steady) -> np.ndarray:
        """(T, A) bool: runs of touch within which the actuator moves."""
        held = np.zeros((len(touched), len(task.actuators)), bool)
        for k, o in enumerate(task.actuators):
            i = task.label(o.name) - 1
            if not touched[:, i].any():
                held[:, k] = fill_gaps(drop_short(moving[:, i], steady), 10 * steady)
                continue
            for a, b in runs(fill_gaps(touched[:, i], 5 * steady)):
                if moving[a:b, i].sum() >= steady:
                    held[a:b, k] = True
        return held

    def _first_contact(self, task, touched, held, moving) -> tuple[int, str]:
        for flags, names, what in (
            (
                touched,
                task.objects,
                "A hand lies on or beside {} for several frames from frame {}.",
            ),
            (held, task.actuators, "No hand is seen; {} moves from frame {}."),
            (moving, task.objects, "No hand is seen; {} changes from frame {}."),
        ):
            if flags.any():
                t = int(np.argmax(flags.any(1)))
                return t, what.format(names[int(np.argmax(flags[t]))].name, t)
        raise UserError(
            "in this video no hand touches an object and nothing moves; choose another video"
        )

    def _goal(self, task, grid, masks, moving, first, steady) -> tuple[int, str]:
        """The goal frame and what it rests on."""
        c = self.config
        targets = [task.label(o.name) - 1 for o in task.targets]
        tools = [task.label(o.name) - 1 for o in task.actuators if o not in task.targets]
        kernel = np.ones((2 * c.clear_px + 1,) * 2, np.uint8)
        frames = len(grid)
        tool_clear, hand_clear = np.ones(frames, bool), np.ones(frames, bool)
        for t in range(first, frames):
            near = masks[t, targets].any(0).astype(np.uint8)
            near = cv2.dilate(near, kernel) > 0
            tool_clear[t] = not (near & masks[t, tools].any(0)).any() if tools else True
            hand_clear[t] = not (near & grid.hand[t]).any()
        hand_gone = grid.hand.mean((1, 2)) < c.hand_share
        still = ~fill_gaps(moving[:, targets].any(1), steady)
        # What is out of sight, a liquid in its bottle, cannot be said to lie still.
        soft = [task.label(o.name) - 1 for o in task.targets if not o.is_rigid]
        still &= masks[:, soft].any((2, 3)).all(1)
        later = np.arange(frames) > first
        # Nothing is reached before something has happened, to the targets if anything does.
        happens = moving[:, targets] if moving[:, targets].any() else moving
        done = np.cumsum(happens.any(1)) > 0
        for flags, words in (
            (still & tool_clear & hand_gone, "the targets lie still, hand and tool are gone"),
            (
                still & tool_clear & hand_clear,
                "the targets lie still, hand and tool are beside them",
            ),
            (still & tool_clear, "the targets lie still and the tool is off them"),
            (still & hand_clear, "the targets lie still and no hand is at them"),
            (still, "the targets lie still"),
        ):
            found = runs(drop_short(flags & later & done, steady))
            if found:
                a, b = found[-1]
                # A little after the last motion, so that blur and shadow have gone as well.
                t = min(a + steady, b - 1)
                return t, f"From frame {a} on {words}."
        return frames - 1, "The targets never come to rest: the last frame is taken."

    def _contact(self, task, grid, masks, poses, tracks, pairs, depth_of, steady) -> np.ndarray:
        """(T, pairs) bool."""
        frames = len(grid)
        out = np.zeros((frames, len(pairs)), bool)
        names = [o.name for o in task.objects]
        surface = {i: surface_points(task, o) for i, o in enumerate(task.objects) if o.is_rigid}

        def cloud(i: int, t: int, depth: np.ndarray | None) -> np.ndarray:
            """(P, 3) [m, world] what is known of object i's surface in frame t."""
            if i in surface:
                return posed(surface[i], poses[t, i])
            return soft_cloud(depth, tracks.masks[t, i], grid)

        for k, pair in enumerate(pairs):
            i, j = (names.index(n) for n in pair)
            soft = [o for o in (i, j) if o not in surface]
            todo = np.flatnonzero(masks[:, soft].any((2, 3)).all(1))
            # In batches, so that a depth model sets up once for many frames and memory stays.
            for part in np.array_split(todo, max(1, -(-len(todo) // 16))):
                depth = depth_of(part) if soft and len(part) else [None] * len(part)
                for t, d in zip(part, depth, strict=True):
                    out[t, k] = nearest_m(cloud(i, t, d), cloud(j, t, d)) < task.spec.contact_m
            out[:, k] = drop_short(fill_gaps(out[:, k], steady), steady)
        return out


def soft_cloud(depth: np.ndarray, mask: np.ndarray, grid: Grid, step: int = 3) -> np.ndarray:
    """(P, 3) [m, world] of a mask's visible surface under `depth` (H, W) [m], every `step`-th
    pixel."""
    camera = grid.camera.resized(depth.shape[1], depth.shape[0])
    if mask.shape != depth.shape:
        mask = cv2.resize(mask.astype(np.uint8), depth.shape[::-1]) > 0
    on = mask & np.isfinite(depth)
    thin = np.zeros_like(on)
    thin[::step, ::step] = True
    return camera.unproject(np.where(on, depth, 0))[on & thin]
