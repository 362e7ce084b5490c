"""Depth completion by a diffusion model of depth that was never trained for it.

The idea of Marigold-DC (Viola et al., 2024), written here anew on diffusers' pipeline: at every step of
denoising the clean latent is previewed and decoded, brought in line with what is known by a scale and
a shift, and the noisy latent takes a step down the gradient of what is then still off. So what is
known steers all that is not, and edges come from the picture.

Beyond it, a video's frames share their noise, and each begins where the one before ended, noised
halfway: what does not move keeps its depth.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

LATENT_RATE = 0.05
"""Step of the latent, by Adam, with gradients scaled to the norm of the noise."""
SCALES = (0.3, 3.0)
"""Bounds of the scale, as multiples of the known range: early previews tell little of it."""


class Completion:
    """Runs the pipeline, one frame after the other."""

    def __init__(
        self, pipeline, *, steps: int, resolution: int, renewed: float, seed: int,
        rate: float = LATENT_RATE,
    ):  # fmt: skip
        """
        Args:
            pipeline: diffusers' `MarigoldDepthPipeline`.
            resolution: of the longer side [pixels]; 0: the checkpoint's own.
            renewed: the share of the steps that frames after the first are denoised anew.
            rate: 0: unguided.
        """
        p = self._p = pipeline
        self._side = resolution or p.default_processing_resolution or 768
        self._side -= self._side % p.vae_scale_factor
        self._rate, self._renewed = rate, renewed
        self._disparity = p.config.prediction_type == "disparity"
        for part in (p.unet, p.vae, p.text_encoder):
            part.requires_grad_(False)
        p.scheduler.set_timesteps(steps, device=p.device)
        self._text = self._empty_text()
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._noise: torch.Tensor | None = None
        self._before: torch.Tensor | None = None

    @property
    def gives(self) -> str:
        return "disparity" if self._disparity else "depth"

    def __call__(self, frame: np.ndarray, known_m: np.ndarray) -> np.ndarray:
        """The estimate (H, W) float32, up to a scale and a shift, of a frame (H, W, 3) uint8.

        Args:
            known_m: (H, W) float32 [m], NaN where nothing is known.
        """
        p, size = self._p, frame.shape[:2]
        rgb = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        image, padding, _ = p.image_processor.preprocess(
            rgb.float() / 255, self._side, "bilinear", p.device, p.dtype
        )
        with torch.no_grad():
            seen = p.vae.encode(image).latent_dist.mode() * p.vae.config.scaling_factor
        shown = p.image_processor.unpad_image(image, padding).shape[-2:]
        target, where = self._target(known_m, tuple(shown))
        latent = self._denoised(seen.float(), target, where, padding)
        self._before = latent
        with torch.no_grad():
            out = interpolate(self._decoded(latent, padding), size, mode="bilinear")
        return out[0, 0].float().cpu().numpy()

    def _empty_text(self) -> torch.Tensor:
        p = self._p
        told = p.tokenizer("", padding="do_not_pad", truncation=True, return_tensors="pt",
                           max_length=p.tokenizer.model_max_length)  # fmt: skip
        with torch.no_grad():
            return p.text_encoder(told.input_ids.to(p.device))[0].to(p.dtype)

    def _target(
        self, known_m: np.ndarray, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is known, on the model's grid, brought to [0, 1], and where it is."""
        known = np.isfinite(known_m) & (known_m > 0)
        value = np.where(known, known_m, 1.0)
        if self._disparity:
            value = 1 / value
        low, high = np.quantile(value[known], (0.01, 0.99)) if known.any() else (0.0, 1.0)
        value = (value - low) / max(high - low, 1e-6)
        both = torch.from_numpy(np.stack([value, known]).astype(np.float32))[None].to(
            self._p.device
        )
        both = interpolate(both, size, mode="nearest")
        return both[:, :1], both[:, 1:] > 0.5

    def _denoised(self, seen, target, where, padding) -> torch.Tensor:
        """The clean latent, float32."""
        scheduler = self._p.scheduler
        if self._noise is None or self._noise.shape != seen.shape:
            self._noise = torch.randn(seen.shape, generator=self._generator).to(seen.device)
            self._before = None
        timesteps = scheduler.timesteps
        latent = self._noise
        if self._before is not None:
            timesteps = timesteps[-max(1, round(self._renewed * len(timesteps))) :]
            latent = scheduler.add_noise(self._before, self._noise, timesteps[:1])
        latent = latent.clone().requires_grad_(self._rate > 0)
        descent = torch.optim.Adam([latent], lr=self._rate)
        guided = self._rate > 0 and bool(where.any())
        for t in timesteps:
            with torch.set_grad_enabled(guided):
                told = torch.cat([seen, latent], 1).to(self._p.dtype)
                out = self._p.unet(told, t, encoder_hidden_states=self._text, return_dict=False)[0]
                clean, noise = self._parted(out.float(), latent, t)
            if guided:
                loss = self._off(self._decoded(clean, padding), target, where)
                (latent.grad,) = torch.autograd.grad(loss, latent)
                latent.grad *= noise.detach().norm() / latent.grad.norm().clamp(min=1e-8)
                descent.step()
            with torch.no_grad():
                # A scheduler of few steps draws noise of its own.
                step = scheduler.step(out.detach().float(), t, latent, generator=self._generator)
                latent.copy_(step.prev_sample)
        return latent.detach()

    def _parted(self, out, latent, t) -> tuple[torch.Tensor, torch.Tensor]:
        """The clean latent and the noise that the model sees in a noisy one."""
        scheduler = self._p.scheduler
        share = scheduler.alphas_cumprod[t.long().cpu()].to(latent)
        a, b = share.sqrt(), (1 - share).sqrt()
        kind = scheduler.config.prediction_type
        if kind == "v_prediction":
            return a * latent - b * out, a * out + b * latent
        if kind == "epsilon":
            return (latent - b * out) / a.clamp(min=1e-4), out
        return out, (latent - a * out) / b.clamp(min=1e-4)

    def _decoded(self, latent, padding) -> torch.Tensor:
        """The depth (1, 1, h, w) of a clean latent; about in [0, 1], but not clipped: where it is,
        nothing could push it back."""
        p = self._p
        given = (latent / p.vae.config.scaling_factor).to(p.dtype)
        out = p.vae.decode(given, return_dict=False)[0].float().mean(1, keepdim=True)
        return p.image_processor.unpad_image((out + 1) / 2, padding)

    @staticmethod
    def _off(depth, target, where) -> torch.Tensor:
        """How far the preview is off what is known (L1 + L2), with the best scale and shift."""
        x, y = depth[where], target[where]
        with torch.no_grad():
            mx, my = x.mean(), y.mean()
            variance = ((x - mx) ** 2).mean().clamp(min=1e-8)
            scale = (((x - mx) * (y - my)).mean() / variance).clamp(*SCALES)
            shift = my - scale * mx
        off = scale * x + shift - y
        return off.abs().mean() + (off**2).mean()
