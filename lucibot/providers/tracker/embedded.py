"""The embedded tracker: no network, no weights, one core (paper, section 3.3).

It knows what every run knows: the meshes, the camera, the first pose and first mask of every object.
Rigid objects are tracked by their mesh (`rigid`; on a joint, `jointed`), deformable ones by flow and
colour (`deformable`), hands as a layer of their own (`hands`); `labelling` then gives every pixel to
one of them.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.geometry import pose_np
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.tracker.appearance import (
    UNIFORM,
    BackgroundPlate,
    ColourModel,
    colour_bins,
    to_lab,
)
from lucibot.providers.tracker.config import EmbeddedTracker
from lucibot.providers.tracker.deformable import DeformableTrack
from lucibot.providers.tracker.hands import HandLayer
from lucibot.providers.tracker.jointed import JointTrack
from lucibot.providers.tracker.labelling import (
    dilate,
    erode,
    mean_field,
    most_likely,
    signed_distance,
    warp,
)
from lucibot.providers.tracker.raster import Mesh, face_parts
from lucibot.providers.tracker.rigid import RigidTrack
from lucibot.task import ObjectSpec, Task

_FLOOR = 1e-12
HIDDEN = 0.02
"""What a hidden pixel of an object costs [log-likelihood]. More than a little draws what is mostly
hidden away from the camera, where it covers less."""
MIXED = 0.15
"""The most that a pixel on an occluder's outline may say against an object."""


class _Rigid:
    """A rigid object: its track and one colour model a part."""

    def __init__(self, obj: ObjectSpec, task: Task, K, far, config, rng, bins, mask, T_cam_world):
        mesh = task.mesh(obj)
        prepared = Mesh(mesh.vertices, mesh.faces, face_parts(mesh), closed=mesh.is_watertight)
        if obj.articulation is None:
            T = T_cam_world @ obj.T_world_object
            self.track = RigidTrack(prepared, T, K, far, config.search, rng)
        else:
            self.track = JointTrack(prepared, obj.articulation, T_cam_world, K, far, config.search)
        self.whole = ColourModel(bins[mask], shading=0.2)
        self.models = []
        for p in range(prepared.n_parts):
            seen = mask & (self.track.part == p)
            inner = erode(seen, 1)
            seen = inner if inner.sum() >= 20 else seen
            # A part that the first frame does not show may look like any other part.
            self.models.append(
                ColourModel(bins[seen], shading=0.2) if seen.sum() >= 20 else self.whole
            )
        self.visible = mask
        self.confidence = 1.0
        self.claimed = mask.astype(np.float32)

    def part_densities(self, bins: np.ndarray) -> np.ndarray:
        """(P, H, W); a little of the whole object's colours is in each, for shading and labels."""
        whole = self.whole.density(bins)
        return np.stack([0.93 * m.density(bins) + 0.07 * whole for m in self.models])


class TrackByColour:
    def __init__(self, config: EmbeddedTracker):
        self.config = config

    def track(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Tracks:
        """Masks, hand layer, poses and confidences of every frame.

        Raises:
            UserError: the video is not of the size of the task's camera.
        """
        T, H, W = video.frames.shape[:3]
        if (W, H) != (task.camera.width, task.camera.height):
            raise UserError(
                f"the video is {W}x{H} but the task's camera sees "
                f"{task.camera.width}x{task.camera.height}; resize the video first"
            )
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            state = _State(self.config, task, view, video.frames[0])
            N = len(task.objects)
            masks = np.zeros((T, N, H, W), bool)
            hand = np.zeros((T, H, W), bool)
            confidence = np.zeros((T, N), np.float32)
            poses = np.full((T, N, 6), np.nan, np.float32)
            for k in range(T):
                masks[k], hand[k], confidence[k], poses[k] = state.step(
                    video.frames[k], first=k == 0
                )
                if k % 10 == 0:
                    progress(f"tracking frame {k + 1} of {T}", (k + 1) / T)
        finally:
            cv2.setNumThreads(threads)
        return Tracks(
            masks=masks, hand=hand, confidence=confidence,
            lost=confidence < self.config.lost_below, poses=poses,
        )  # fmt: skip


class _State:
    """Everything that is carried from frame to frame, on the work grid (h, w)."""

    def __init__(self, config: EmbeddedTracker, task: Task, view: SceneView, frame: np.ndarray):
        H, W = frame.shape[:2]
        self.config, self.task, self.full = config, task, (H, W)
        scale = min(1.0, config.work_width / W)
        self.w, self.h = round(W * scale), round(H * scale)
        self.size = (self.h, self.w)
        cam = task.camera.resized(self.w, self.h)
        self.T_world_cam = cam.T_world_cam
        K = np.array([cam.fx, cam.fy, cam.cx, cam.cy])
        small = self._shrink(frame)
        lab = to_lab(small)
        bins = colour_bins(lab)
        labels = cv2.resize(view.labels, (self.w, self.h), interpolation=cv2.INTER_NEAREST)
        rng = np.random.default_rng(config.seed)

        depth = cv2.resize(
            view.background_depth_m, (self.w, self.h), interpolation=cv2.INTER_NEAREST
        )
        seen = np.isfinite(depth) & (depth > 0)
        # Rounding and the picture's grid put resting objects a few millimetres into their support.
        far = np.where(seen, 1 / np.where(seen, depth + 0.006, 1), 0).astype(np.float32)
        # The seam around objects holds mixed colours and small errors of the first masks.
        known = ~dilate(labels > 0, 3)
        plate_lab, known = self._with_rendered_background(view, lab, known)
        self.plate = BackgroundPlate(plate_lab, known)
        self.hand = HandLayer(self.size)
        self.objects: list[_Rigid | DeformableTrack] = []
        for i, obj in enumerate(task.objects):
            mask = labels == i + 1
            if not mask.any():
                raise UserError(f"object {obj.name!r} is not visible in the first frame")
            if obj.is_rigid:
                self.objects.append(
                    _Rigid(obj, task, K, far, config, rng, bins, mask, cam.T_cam_world)
                )
            else:
                self.objects.append(DeformableTrack(mask, bins))
        # What a hand moves as it likes may soon be anywhere that looks like it.
        self._handled = [not o.is_rigid and "actuator" in o.roles for o in task.objects]
        # What lies in or on a rigid thing goes with it, out of sight too, and may come out of it.
        self._hosts = {
            i: [
                j for j, host in enumerate(self.objects)
                if isinstance(host, _Rigid) and (dilate(o.visible, 3) & (labels == j + 1)).any()
            ]
            for i, o in enumerate(self.objects) if isinstance(o, DeformableTrack)
        }  # fmt: skip
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        self._count = 0

    def _shrink(self, frame: np.ndarray) -> np.ndarray:
        return cv2.resize(frame, (self.w, self.h), interpolation=cv2.INTER_AREA)

    def _with_rendered_background(self, view, lab, known):
        """Fill what the objects hide from the ray-traced plate, if it agrees with the video."""
        plate = to_lab(self._shrink(view.background_frame)).astype(np.float32)
        difference = lab.astype(np.float32) - plate
        offset = np.median(difference[known], axis=0)
        off = np.abs(difference - offset)[known].max(-1)
        if np.quantile(off, 0.8) > 8:
            return lab, known
        filled = np.where(known[..., None], lab, np.clip(plate + offset, 0, 255)).astype(np.uint8)
        return filled, np.ones_like(known)

    # -- one frame ------------------------------------------------------------------------------

    def step(self, frame: np.ndarray, *, first: bool):
        small = self._shrink(frame)
        lab = to_lab(small)
        bins = colour_bins(lab)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if first:
            flow = np.zeros((*self.size, 2), np.float32)
        else:
            flow = self._flow.calc(self._gray, gray, None)
        self._gray, self._motion = gray, flow
        p_bg, d2 = self.plate.density(lab, bins)
        p_skin = self.hand.density(bins)
        warped_hand = warp(self.hand.mask, flow) > 0.5
        log_hand = self.hand.log_prior(warped_hand)
        guesses, p_parts, near = {}, {}, {}
        for i, o in enumerate(self.objects):
            if isinstance(o, _Rigid):
                guesses[i] = o.track.predict(flow, o.visible)
                p_parts[i] = o.part_densities(bins)
                shift = int(np.ceil(np.abs(guesses[i][:2]).max())) + 4
                near[i] = dilate(o.track.part >= 0, min(shift, 40))
            else:
                o.predict(flow)
                p_parts[i] = o.model.density(bins)[None]
                near[i] = dilate(o.whole > 0.5, 3)
        if not first:
            edge = self.plate.new_edges(lab)
            self._fit_rigid(p_bg, p_skin, log_hand, guesses, p_parts, near, edge)
        belief = self._label(lab, p_bg, d2, p_skin, log_hand, p_parts)
        return self._finish(belief, lab, bins, d2, warped_hand, p_skin, p_parts)

    def _fit_rigid(self, p_bg, p_skin, log_hand, guesses, p_parts, near, edge) -> None:
        """Find the pose of every rigid object, the nearest to the camera first."""
        rigid = [i for i, o in enumerate(self.objects) if isinstance(o, _Rigid)]
        rigid.sort(key=lambda i: self.objects[i].track.pose.centre[2])
        w_hand = np.exp(log_hand) * p_skin
        # Something that is neither background nor known: hands in odd light, sleeves.
        w_unknown = 0.05 * 0.5 * UNIFORM
        for n, i in enumerate(rigid):
            o = self.objects[i]
            others = np.zeros(self.size, np.float32)
            for j in range(len(self.objects)):
                if j != i:
                    others = np.maximum(others, 0.5 * near[j] * p_parts[j].max(0))
            own = p_parts[i].max(0)
            occluder = w_hand + w_unknown + others
            hidden = occluder / (occluder + 0.5 * p_bg + 0.5 * own + _FLOOR)
            for j in rigid[:n]:
                # What a nearer object explains says nothing about this one.
                hidden = np.maximum(hidden, 0.95 * self.objects[j].claimed)
            # Along the outline of what hides it colours are mixed.
            mixed = dilate(hidden > 0.8, 1)
            gain = np.empty_like(p_parts[i])
            for p in range(len(gain)):
                rest = p_bg + 0.2 * np.delete(p_parts[i], p, 0).max(0, initial=0.0)
                ratio = np.log((p_parts[i][p] + _FLOOR) / (rest + _FLOOR))
                evidence = np.clip(ratio, np.where(mixed, -MIXED, -3), 3)
                gain[p] = (1 - hidden) * evidence - HIDDEN * hidden
            # A hand's outline must not pull, so edges count only where none is near.
            open_ = 1 - cv2.dilate(hidden.astype(np.float32), np.ones((3, 3), np.uint8))
            self._move(i, gain, self.config.edge_weight * edge * open_, guesses[i])
            o.claimed = ((o.track.part >= 0) & (own > p_bg) & (own > w_hand)).astype(np.float32)
            near[i] = dilate(o.track.part >= 0, 3)

    def _move(self, i: int, gain: np.ndarray, edge: np.ndarray, guess: np.ndarray) -> None:
        o = self.objects[i]
        track = o.track
        drawn = track.part >= 0
        touched = (dilate(drawn, 5) & self.hand.mask).any() or any(
            not q.track.resting and (dilate(drawn, 4) & (q.track.part >= 0)).any()
            for j, q in enumerate(self.objects) if j != i and isinstance(q, _Rigid)
        )  # fmt: skip
        # Rest is checked now and then, and more often once something is near.
        if track.resting and self._count % (2 if touched else 4):
            track.accept(None)
        else:
            pose, value = track.search(gain, edge, guess, [self._hand_motion(drawn)])
            # A resting object does not move for the little that noise can gain.
            positive = np.maximum(gain.max(0), 0)[drawn].sum()
            share = 0.0 if not track.resting else 0.015 if touched else 0.04
            hold = track.hold_value(gain, edge)
            track.accept(pose if value > hold + share * positive + 2.0 else None)
        part = track.part
        shown = part >= 0
        g = np.take_along_axis(gain, np.maximum(part, 0)[None].astype(np.int64), 0)[0]
        open_ = shown & (np.abs(g) > 0.3)
        n = int(open_.sum())
        agree = float((g[open_] > 0).mean()) if n else 0.0
        seen = n / max(int(shown.sum()), 1)
        o.confidence = agree * min(1.0, seen / 0.15)
        track.lost_for = track.lost_for + 1 if o.confidence < self.config.lost_below else 0

    def _hand_motion(self, drawn: np.ndarray) -> np.ndarray:
        """The (7,) change of an object that moves along with the hand around it."""
        d = np.zeros(7)
        holding = self.hand.mask & dilate(drawn, 8)
        if holding.sum() > 20:
            d[:2] = np.median(self._motion[holding], axis=0)
        return d

    def _label(self, lab, p_bg, d2, p_skin, log_hand, p_parts) -> np.ndarray:
        """(h, w, 2 + N) beliefs: background, hand, objects."""
        N = len(self.objects)
        unary = np.empty((2 + N, *self.size), np.float32)
        unary[0] = np.log(0.5 * p_bg + 0.02 * UNIFORM)
        odd = 0.3 * UNIFORM * (d2 > 9)
        unary[1] = np.log(p_skin + odd) + log_hand
        where = self.hand.mask.copy()
        nearest = np.full(self.size, np.inf, np.float32)
        for o in self.objects:
            if isinstance(o, _Rigid):
                nearest = np.minimum(nearest, o.track.depth)
        for i, o in enumerate(self.objects):
            if isinstance(o, _Rigid):
                shown = o.track.part >= 0
                d = signed_distance(shown)
                part = np.maximum(o.track.part, 0).astype(np.int64)
                drawn = np.take_along_axis(p_parts[i], part[None], 0)[0]
                density = np.where(shown, 0.6 * drawn + 0.4 * p_parts[i].max(0), p_parts[i].max(0))
                prior = np.where(d > 0, np.minimum(0.8 * d, 2.5), 1.6 * d) - 0.7
                behind = np.where(shown, o.track.depth, 0) - np.where(shown, nearest, 0)
                # Depth along the ray is weakly known, so it only tips the balance.
                prior -= np.clip(behind / 0.02, 0, 1.5)
                prior[d < -4] = -30
                # The inside of a silhouette is not background, whatever it looks like.
                unary[0] -= np.clip(2 * d - 3, 0, 6)
                unary[2 + i] = np.log(np.maximum(density, 0.3 * UNIFORM)) + prior
                where |= d > -6
            else:
                source = np.zeros(self.size, bool)
                for j in self._hosts[i]:
                    source |= dilate(self.objects[j].track.part >= 0, 4)
                if self._handled[i]:
                    own = p_parts[i][0]
                    source |= (own > 8 * p_bg) & (own > 2 * p_skin) & (own > 8 * UNIFORM)
                prior = o.log_prior(source)
                unary[2 + i] = np.log(np.maximum(p_parts[i][0], 0.1 * UNIFORM)) + prior
                where |= dilate(o.whole > 0.5, 6) | source
        where |= unary.argmax(0) > 0
        return mean_field(unary, lab, where)

    def _finish(self, belief, lab, bins, d2, warped_hand, p_skin, p_parts):
        """Masks at full size; update of everything that learns."""
        H, W = self.full
        N = len(self.objects)
        label = most_likely(belief)
        hand = self.hand.update(label == 1, warped_hand, label >= 2)
        # What was taken for a hand without being one goes to whatever comes second.
        belief[..., 1] *= dilate(hand, 1)
        label = self._without_holes(belief)
        touched = np.zeros(self.size, bool)
        confidence, poses = np.zeros(N, np.float32), np.full((N, 6), np.nan, np.float32)
        for i, o in enumerate(self.objects):
            seen = label == 2 + i
            if isinstance(o, _Rigid):
                o.visible = erode(seen, 1) & (o.track.part >= 0)
                confidence[i] = o.confidence
                T = self.T_world_cam @ o.track.T_cam_object()
                poses[i] = pose_np(T)
                touched |= dilate(o.track.part >= 0, 3)
            else:
                o.update(belief[..., 2 + i], belief[..., 0], seen)
                whole = float((o.whole > 0.5).sum())
                confidence[i] = min(1.0, float(seen.sum()) / max(0.15 * whole, 1.0))
                touched |= dilate(o.whole > 0.5, 3)
        self.plate.learn(lab, erode(belief[..., 0] > 0.9, 2) & ~touched)
        if self._count % 3 == 0:
            self.hand.learn(bins, (belief[..., 1] > 0.9) & (d2 > 16) & ~touched)
        if self._count % 2 == 0:
            for i, o in enumerate(self.objects):
                self._learn_colours(i, o, belief, bins, p_skin, p_parts[i])
        self._count += 1
        full = most_likely(cv2.resize(belief, (W, H), interpolation=cv2.INTER_LINEAR))
        masks = np.stack([full == 2 + i for i in range(N)])
        return masks, full == 1, confidence, poses

    def _without_holes(self, belief) -> np.ndarray:
        """(h, w) classes, after closing small holes in rigid objects whose meshes have none there.

        Shading inside a cup can look like another cup or the table. A hole that shows a hand, or
        most of what is seen of another object, stays open.
        """
        label = most_likely(belief)
        for i, o in enumerate(self.objects):
            if not isinstance(o, _Rigid):
                continue
            mine = label == 2 + i
            area = int(mine.sum())
            n, parts, stats, _ = cv2.connectedComponentsWithStats(
                (~mine).astype(np.uint8), connectivity=4
            )
            for k in range(1, n):
                x, y, w, h, size = stats[k]
                if size > 0.2 * area or x == 0 or y == 0 or x + w == self.w or y + h == self.h:
                    continue
                hole = parts == k
                counts = np.bincount(label[hole], minlength=belief.shape[-1])
                what = int(counts.argmax())
                if what == 1 or (o.track.part[hole] >= 0).mean() < 0.9:
                    continue
                if what >= 2 and counts[what] > 0.3 * (label == what).sum():
                    continue
                label[hole] = 2 + i
                belief[hole] = 0
                belief[hole, 2 + i] = 1
        return label

    def _learn_colours(self, i, o, belief, bins, p_skin, p_parts) -> None:
        """Colours change slowly: only what the models explain already, and better than skin, is
        learned. Else the shaded fingers around a handle would become the handle's colour."""
        sure = erode(belief[..., 2 + i] > 0.95, 2)
        if not isinstance(o, _Rigid):
            if sure.sum() > 100:
                o.model.learn(bins[sure])
            return
        if o.confidence < 0.8:
            return
        for p, model in enumerate(o.models):
            known = (p_parts[p] > 3 * UNIFORM) & (p_parts[p] > p_skin)
            here = sure & known & erode(o.track.part == p, 1)
            if model is not o.whole and here.sum() > 40:
                model.learn(bins[here], keep=0.6)
