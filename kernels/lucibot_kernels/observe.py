"""Label and depth images of all environments at once: a z-buffer of posed meshes and particles.

Conventions: OpenCV camera axes, pixel (u, v) has its centre at (u + 0.5, v + 0.5), depth is the
camera z [m], quaternions are wxyz, label 0 is the background by convention of the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lucibot_kernels import runtime
from lucibot_kernels.checks import batched_points, check, nonempty
from lucibot_kernels.overlap import label_iou, ratio
from lucibot_kernels.runtime import cpu_threads, kernels

NEAR_M = 0.01
"""What is closer to the camera's plane than this [m] is cut off."""

_NOTHING = 0x7FFFFF  # the primitive of a background pixel: 23 bits, the most that fit
_GPU_SCRATCH_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What every environment's camera sees."""

    label: torch.Tensor
    """(B, H, W) i32."""
    depth: torch.Tensor
    """(B, H, W) f32, camera z [m]; infinite where nothing is."""
    face: torch.Tensor | None = None
    """(B, H, W) i32: the index of the triangle seen, -1 elsewhere."""


class Wanted:
    """Masks that an observer's pictures are compared with, of K pictures a set."""

    def __init__(
        self, labels: Sequence[int], mask: torch.Tensor, valid: torch.Tensor | None = None
    ) -> None:
        """
        labels: L different labels.
        mask: (K, L, H, W) bool, where each is wanted.
        valid: (K, H, W) bool, the pixels that count; all by default.
        """
        dims = {"L": len(labels)}
        device = mask.device if isinstance(mask, torch.Tensor) else torch.device("cpu")
        check("mask", mask, torch.bool, ("K", "L", "H", "W"), dims=dims, device=device)
        if valid is None:
            valid = torch.ones(mask[:, 0].shape, dtype=torch.bool, device=device)
        check("valid", valid, torch.bool, ("K", "H", "W"), dims=dims, device=device)
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"labels: expected different labels, at least one, got {labels}")
        self.labels, self.mask, self.valid = list(labels), mask, valid
        self.total = (mask & valid[:, None]).sum((2, 3), dtype=torch.int32)
        """(K, L) i32 pixels of each mask that count."""
        self.label = torch.tensor(self.labels, dtype=torch.int32, device=device)
        """(L,) i32."""


class Observer:
    """Draws one set of meshes and particles, at any poses, over one static background.

    Diverged simulations must not stop the others: bodies and particles whose coordinates are not
    finite, or beyond 1e6 m, and bodies with a zero quaternion are not drawn.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        fx: float,
        fy: float,
        cx: float,
        cy: float,
        T_cam_world: np.ndarray | torch.Tensor,
        vertices_m: torch.Tensor | None = None,
        faces: torch.Tensor | None = None,
        vertex_body: torch.Tensor | None = None,
        body_label: torch.Tensor | None = None,
        particle_radius_m: float | torch.Tensor = 0.0,
        particle_label: torch.Tensor | None = None,
        background_label: torch.Tensor | None = None,
        background_depth_m: torch.Tensor | None = None,
        roi: Sequence[int] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Everything that stays the same from frame to frame.

        width, height, fx, fy, cx, cy: the whole image and its intrinsics [pixels].
        T_cam_world: (4, 4), maps world to camera coordinates.
        vertices_m: (V, 3) f32 [m], each in the frame of its body; faces: (F, 3) i32;
            vertex_body: (V,) i32; body_label: (Nb,) i32. No meshes by default.
        particle_radius_m: one radius or (N,) f32 [m]; particle_label: (N,) i32. No particles by
            default.
        background_label: (height, width) i32, zeros by default; background_depth_m: (height,
            width) f32 [m], positive or infinite, infinite by default.
        Labels are 0..255; faces and particles together fewer than 2^23.
        roi: (left, top, width, height) [pixels], the only part of the image to draw: outputs have
            its size. Backgrounds are still given for the whole image.
        device: where all tensors live; torch's default device by default.
        """
        # The device of a tensor carries an index ("cuda:0") that its name may lack.
        self.device = torch.empty(0, device=device).device
        left, top, w, h = (0, 0, width, height) if roi is None else (int(r) for r in roi)
        if min(w, h) < 1 or left < 0 or top < 0 or left + w > width or top + h > height:
            raise ValueError(
                f"roi: expected a box (left, top, width, height) inside {width}x{height}, "
                f"got {(left, top, w, h)}"
            )
        self.width, self.height = w, h
        T = T_cam_world.cpu() if isinstance(T_cam_world, torch.Tensor) else T_cam_world
        T = np.asarray(T, dtype=np.float64)
        if T.shape != (4, 4) or not np.isfinite(T).all():
            raise ValueError(f"T_cam_world: expected a finite (4, 4) matrix, got shape {T.shape}")
        intrinsics = np.array([fx, fy, cx - left, cy - top], dtype=np.float64)
        if not (np.isfinite(intrinsics).all() and fx > 0 and fy > 0):
            raise ValueError(f"fx, fy, cx, cy: expected finite numbers, fx and fy positive, got "
                             f"{(fx, fy, cx, cy)}")  # fmt: skip
        self._camera = np.concatenate([intrinsics, T[:3].reshape(-1)]).astype(np.float32)
        self._set_meshes(vertices_m, faces, vertex_body, body_label)
        self._set_particles(particle_radius_m, particle_label)
        self._set_background(
            background_label, background_depth_m, (height, width),
            (slice(top, top + h), slice(left, left + w)),
        )  # fmt: skip
        if self.faces + self.particles >= _NOTHING:
            raise ValueError(
                f"faces, particle_label: expected fewer than {_NOTHING} primitives, got "
                f"{self.faces} faces and {self.particles} particles"
            )
        self._dummy = torch.zeros(1, dtype=torch.float32, device=self.device)
        self._no_face = torch.zeros(1, dtype=torch.int32, device=self.device)
        self._buffers: dict[str, torch.Tensor] = {}

    def _set_meshes(self, vertices_m, faces, vertex_body, body_label) -> None:
        given = [x is not None for x in (vertices_m, faces, vertex_body, body_label)]
        if any(given) != all(given):
            raise ValueError(
                "vertices_m, faces, vertex_body, body_label: expected all four or none, got "
                f"{sum(given)} of them"
            )
        i32 = {"dtype": torch.int32, "device": self.device}
        if not any(given):
            vertices_m = torch.zeros((0, 3), dtype=torch.float32, device=self.device)
            faces = torch.zeros((0, 3), **i32)
            vertex_body, body_label = torch.zeros(0, **i32), torch.zeros(0, **i32)
        dims: dict[str, int] = {}
        on = {"dims": dims, "device": self.device}
        check("vertices_m", vertices_m, torch.float32, ("V", 3), **on)
        check("faces", faces, torch.int32, ("F", 3), **on)
        check("vertex_body", vertex_body, torch.int32, ("V",), **on)
        check("body_label", body_label, torch.int32, ("Nb",), **on)
        _in_range("faces", faces, dims["V"])
        _in_range("vertex_body", vertex_body, dims["Nb"])
        if not torch.isfinite(vertices_m).all():
            raise ValueError("vertices_m: expected finite numbers, got NaN or infinity")
        owner = vertex_body[faces.long()]
        if faces.numel() and not (owner == owner[:, :1]).all():
            raise ValueError("faces: expected the corners of a face on one body, got two bodies")
        self.bodies, self.faces, self.vertices = dims["Nb"], dims["F"], dims["V"]
        _in_range("body_label", body_label, 256)
        labels = body_label[owner[:, 0].long()] if faces.numel() else body_label[:0]
        self._vertices, self._faces = nonempty(vertices_m.view(-1)), nonempty(faces.view(-1))
        self._vertex_body, self._face_label = nonempty(vertex_body), nonempty(labels)
        self._body_label = nonempty(body_label)

    def _set_particles(self, radius_m, label) -> None:
        if label is None:
            label = torch.zeros(0, dtype=torch.int32, device=self.device)
        dims: dict[str, int] = {}
        check("particle_label", label, torch.int32, ("N",), dims=dims, device=self.device)
        _in_range("particle_label", label, 256)
        self.particles, self._particle_label = dims["N"], nonempty(label)
        if not isinstance(radius_m, torch.Tensor):
            radius_m = torch.full((self.particles,), float(radius_m), device=self.device)
        check("particle_radius_m", radius_m, torch.float32, ("N",), dims=dims, device=self.device)
        if self.particles and not (torch.isfinite(radius_m) & (radius_m > 0)).all():
            raise ValueError("particle_radius_m: expected positive radii, got others")
        self._radius = nonempty(radius_m)

    def _set_background(self, label, depth_m, shape, crop) -> None:
        on = {"dims": {}, "device": self.device}
        if label is None:
            label = torch.zeros(shape, dtype=torch.int32, device=self.device)
        if depth_m is None:
            depth_m = torch.full(shape, torch.inf, device=self.device)
        check("background_label", label, torch.int32, shape, **on)
        check("background_depth_m", depth_m, torch.float32, shape, **on)
        if not (depth_m > 0).all():
            raise ValueError(
                "background_depth_m: expected positive or infinite depth, got "
                f"{int((~(depth_m > 0)).sum())} other pixels"
            )
        _in_range("background_label", label, 256)
        bits = depth_m[crop].contiguous().view(torch.int32).long()
        self._background = ((bits << 32) | (_NOTHING << 8) | label[crop].long()).view(-1)
        far = int(torch.tensor(torch.inf).view(torch.int32)) << 32
        self._empty = torch.full_like(self._background, far | (_NOTHING << 8))

    def observe(
        self,
        position_m: torch.Tensor | None = None,
        quaternion: torch.Tensor | None = None,
        particles_m: torch.Tensor | None = None,
        *,
        draw: torch.Tensor | None = None,
        draw_particle: torch.Tensor | None = None,
        particle_label: torch.Tensor | None = None,
        background: bool = True,
        with_face: bool = False,
        cull_backfaces: bool = False,
        out: Observation | None = None,
    ) -> Observation:
        """Draw B environments.

        position_m: (B, Nb, 3) f32 [m, world] and quaternion: (B, Nb, 4) f32 wxyz, the pose of each
            body; quaternions need not be normalised. Required when there are meshes.
        particles_m: (B, N, 3) f32 [m, world], contiguous or `pos.transpose(0, 1)` of Genesis' own
            (N, B, 3), which costs nothing. Required when there are particles.
        draw: (Nb,) bool, draw_particle: (N,) bool: what to draw; everything by default.
        particle_label: (B, N) i32 in 0..255, not checked: labels of the particles of each environment
            in place of those that all share.
        background: False draws over nothing: label 0, infinite depth.
        with_face: also return the index of the triangle that is seen.
        cull_backfaces: leave out triangles whose corners turn clockwise as the camera sees them,
            the far side of a closed mesh with outward faces; about a third faster.
        out: an earlier result of the same shape to write into; a new one is made otherwise, which
            costs about as much as drawing a small mesh.
        """
        dims, poses, points = self._inputs(position_m, quaternion, particles_m)
        on = {"dims": dims, "device": self.device}
        for name, mask, count in (("draw", draw, "Nb"), ("draw_particle", draw_particle, "N")):
            if mask is not None:
                check(name, mask, torch.bool, (count,), **on)
        labels = self._particle_label
        if particle_label is not None:
            labels = check("particle_label", particle_label, torch.int32, ("B", "N"), **on)
            labels = labels if labels.numel() else self._particle_label
        out = self._outputs(out, dims["B"], with_face)
        k = kernels("_observe_kernels", self.device)
        scene = self._scene(
            k, poses, points, labels, draw, draw_particle, background, cull_backfaces
        )
        self._draw(k, scene, out, dims["B"], int(out.face is not None))
        return out

    def primitives(
        self,
        position_m: torch.Tensor | None = None,
        quaternion: torch.Tensor | None = None,
        particles_m: torch.Tensor | None = None,
        *,
        cull_backfaces: bool = False,
    ) -> torch.Tensor:
        """What is seen at each pixel without a background, (B, H, W) i32: the index of a triangle, or
        the number of triangles and the index of a particle; -1 where nothing is. Arguments as in
        `observe`."""
        dims, poses, points = self._inputs(position_m, quaternion, particles_m)
        out = self._outputs(None, dims["B"], True)
        k = kernels("_observe_kernels", self.device)
        scene = self._scene(
            k, poses, points, self._particle_label, background=False,
            cull_backfaces=cull_backfaces,
        )  # fmt: skip
        self._draw(k, scene, out, dims["B"], 2)
        return out.face

    @property
    def background_depth_m(self) -> torch.Tensor:
        """(H, W) f32 [m], of the part that is drawn; infinite where nothing is."""
        bits = (self._background >> 32).int()
        return bits.view(torch.float32).view(self.height, self.width)

    def _draw(self, k, scene, out: Observation, batch: int, with_face: int) -> None:
        threads = cpu_threads() if runtime.few_threads(self.device) else None
        # On the CPU a z-buffer a thread; on the GPU one an environment, in chunks if need be.
        pixels = self.height * self.width
        slots = min(batch, threads or max(1, _GPU_SCRATCH_BYTES // (8 * pixels)))
        step = batch if threads else slots
        scratch = self._scratch(k, slots)
        pictures = k.Pictures(
            label=out.label.view(-1), depth=out.depth.view(-1),
            face=self._no_face if out.face is None else out.face.view(-1),
        )  # fmt: skip
        draw_all = k.draw_serial if threads else k.draw_parallel
        for first in range(0, batch, max(step, 1)):
            count = min(step, batch - first)
            draw_all(scene, scratch, pictures, first, count, min(slots, count), with_face)

    def overlap(
        self,
        wanted: Wanted,
        position_m: torch.Tensor | None = None,
        quaternion: torch.Tensor | None = None,
        particles_m: torch.Tensor | None = None,
        *,
        cull_backfaces: bool = False,
    ) -> torch.Tensor:
        """IoU (B, L) f32 of what each environment shows of L labels with wanted masks.

        With K sets of masks the first B / K environments are compared with the first set, and so on.
        The bits of `label_iou(observe(...).label, ...)`, but on the CPU no picture is made, and only
        the part of it is drawn in which the wanted labels are. Arguments as in `observe`.
        """
        sets, masks = wanted.mask.shape[:2]
        check("wanted.mask", wanted.mask, torch.bool, (sets, masks, self.height, self.width),
              dims={}, device=self.device)  # fmt: skip
        dims, poses, points = self._inputs(position_m, quaternion, particles_m)
        batch = dims["B"]
        if not sets or batch % sets:
            raise ValueError(f"B: expected a multiple of the {sets} sets of masks, got {batch}")
        if not runtime.few_threads(self.device):
            given = [
                [None] * sets if x is None else x.split(max(batch // sets, 1))
                for x in (position_m, quaternion, particles_m)
            ]
            return torch.cat([
                label_iou(self.observe(*x, cull_backfaces=cull_backfaces).label, wanted.labels, mask, valid)
                for *x, mask, valid in zip(*given, wanted.mask, wanted.valid, strict=True)
            ])  # fmt: skip
        counts = torch.zeros((2, max(batch * masks, 1)), dtype=torch.int32)
        if batch:
            k = kernels("_observe_kernels", self.device)
            slots = min(batch, cpu_threads())
            masks_of = k.Masks(
                labels=wanted.label, count=masks, envs_of_set=max(batch // sets, 1),
                mask=wanted.mask.view(torch.uint8).view(-1),
                valid=wanted.valid.view(torch.uint8).view(-1), total=wanted.total.view(-1),
            )  # fmt: skip
            scene = self._scene(
                k, poses, points, self._particle_label, cull_backfaces=cull_backfaces
            )
            k.overlap_serial(
                scene, self._scratch(k, slots), masks_of, batch, slots, counts[0], counts[1]
            )
        return ratio(*counts)[: batch * masks].view(batch, masks)

    def _inputs(self, position_m, quaternion, particles_m) -> tuple[dict[str, int], tuple, tuple]:
        """What is to be drawn, checked: sizes by name, flat poses, and points with two strides."""
        dims = {"Nb": self.bodies, "N": self.particles}
        on = {"dims": dims, "device": self.device}
        if self.faces or position_m is not None:
            check("position_m", position_m, torch.float32, ("B", "Nb", 3), **on)
            check("quaternion", quaternion, torch.float32, ("B", "Nb", 4), **on)
        if self.particles or particles_m is not None:
            memory, *strides = batched_points("particles_m", particles_m, count="N", **on)
            points = (nonempty(memory), *strides)
        else:
            points = (self._dummy, 0, 0)
        if "B" not in dims:
            raise ValueError("position_m, particles_m: expected poses or particles, got neither")
        return dims, (self._or_dummy(position_m), self._or_dummy(quaternion)), points

    def _scene(
        self, k, poses, points, labels, draw=None, draw_particle=None, background=True,
        cull_backfaces=False,
    ):  # fmt: skip
        """What the kernels are told to draw (`_raster.Scene`)."""
        particle, stride_env, stride_particle = points
        return k.Scene(
            camera=self._camera, height=self.height, width=self.width, cull=int(cull_backfaces),
            background=self._background if background else self._empty,
            bodies=self.bodies, vertices=self.vertices, faces=self.faces,
            rest=self._vertices, vertex_body=self._vertex_body,
            face=self._faces, face_label=self._face_label, body_label=self._body_label,
            body_drawn=self._mask("draw", draw, self.bodies),
            position=poses[0], quaternion=poses[1],
            particles=self.particles, particle=particle, stride_env=stride_env,
            stride_particle=stride_particle, radius=self._radius,
            particle_label=labels.view(-1), label_stride=self.particles * (labels.ndim - 1),
            particle_drawn=self._mask("draw_particle", draw_particle, self.particles),
        )  # fmt: skip

    def _scratch(self, k, slots: int):
        """Memory for so many environments at a time (`_raster.Scratch`)."""
        return k.Scratch(
            transform=self._memory("transform", slots * self.bodies * 3 * 4, torch.float32),
            vertex=self._memory("vertex", slots * self.vertices * k.VERTEX, torch.float32),
            zbuffer=self._memory("zbuffer", slots * self.height * self.width, torch.int64),
        )

    def _outputs(self, out: Observation | None, batch: int, with_face: bool) -> Observation:
        shape = (batch, self.height, self.width)
        if out is None:
            i32 = {"dtype": torch.int32, "device": self.device}
            return Observation(
                label=torch.empty(shape, **i32),
                depth=torch.empty(shape, dtype=torch.float32, device=self.device),
                face=torch.empty(shape, **i32) if with_face else None,
            )
        on = {"dims": {}, "device": self.device}
        check("out.label", out.label, torch.int32, shape, **on)
        check("out.depth", out.depth, torch.float32, shape, **on)
        if with_face:
            check("out.face", out.face, torch.int32, shape, **on)
            return out
        return Observation(label=out.label, depth=out.depth)

    def _or_dummy(self, x: torch.Tensor | None) -> torch.Tensor:
        return self._dummy if x is None or not x.numel() else x.view(-1)

    def _mask(self, name: str, mask: torch.Tensor | None, count: int) -> torch.Tensor:
        if mask is not None:
            return nonempty(mask.view(torch.uint8))
        if name not in self._buffers:
            ones = torch.ones(max(count, 1), dtype=torch.uint8, device=self.device)
            self._buffers[name] = ones
        return self._buffers[name]

    def _memory(self, name: str, size: int, dtype: torch.dtype) -> torch.Tensor:
        """Memory that is kept from call to call; its content does not matter."""
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(max(size, 1), dtype=dtype, device=self.device)
        return self._buffers[name]


def _in_range(name: str, index: torch.Tensor, size: int) -> None:
    if index.numel() and not (0 <= int(index.min()) and int(index.max()) < size):
        raise ValueError(
            f"{name}: expected indices in 0..{size - 1}, got {int(index.min())}..{int(index.max())}"
        )
