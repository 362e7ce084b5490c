"""Pictures and plots of the report, as text that goes straight into the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.video import Video, read_video, write_video
from lucibot.report.data import MaskFrame, PoseFrame, Rollouts

PALETTE = ((20, 184, 166), (249, 115, 22), (99, 102, 241), (236, 72, 153), (132, 204, 22))
"""RGB, one an object."""
HAND = (120, 120, 130)
AXES = ((230, 57, 70), (46, 160, 67), (48, 112, 240))
AXIS_M = 0.04
TILE_WIDTH = 400
LARGEST_VIDEO_BYTES = 3_000_000
SMALL_VIDEO_WIDTH = 480
# Colours that matplotlib writes and the page's style replaces, so that plots follow light and dark.
_INK, _ACCENT, _FAINT = "#010203", "#0a0b0c", "#0d0e0f"


def jpeg(image: np.ndarray, width: int | None = None, quality: int = 84) -> str:
    """An RGB image as a data URI, shrunk to `width` if that is less than it has."""
    if width is not None and image.shape[1] > width:
        size = (width, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"an image of shape {image.shape} cannot be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def mp4(path: Path, scratch: Path) -> str:
    """A video file as a data URI; a large one is encoded again, smaller, in `scratch`."""
    if path.stat().st_size > LARGEST_VIDEO_BYTES:
        video = read_video(path)
        h, w = video.frames.shape[1:3]
        size = (min(SMALL_VIDEO_WIDTH, w), round(h * min(SMALL_VIDEO_WIDTH, w) / w))
        small = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in video.frames])
        path = scratch / f"small_{path.name}"
        write_video(path, Video(frames=small, fps=video.fps), crf=26)
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def with_masks(frame: MaskFrame) -> np.ndarray:
    """The frame with every mask tinted and outlined, the hand in grey."""
    out = frame.image.copy()
    layers = [(m, PALETTE[i % len(PALETTE)]) for i, m in enumerate(frame.masks)]
    if frame.hand is not None:
        layers.insert(0, (frame.hand, HAND))
    thick = max(1, round(out.shape[1] / 300))
    for mask, color in layers:
        tint = 0.6 * out[mask] + 0.4 * np.array(color)
        out[mask] = np.round(tint).astype(np.uint8)
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, color, thick, cv2.LINE_AA)
    return out


def with_outlines(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A picture with the outline of each object of `labels` (H, W) in its colour."""
    out = image.copy()
    size = out.shape[1::-1]
    thick = max(1, round(out.shape[1] / 300))
    for label in range(1, int(labels.max()) + 1):
        mask = cv2.resize((labels == label).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, PALETTE[(label - 1) % len(PALETTE)], thick, cv2.LINE_AA)
    return out


def with_box(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """A picture with a frame around a place: left, top, right and bottom as shares."""
    out, (h, w) = image.copy(), image.shape[:2]
    left, top, right, bottom = (
        round(edge * size) for edge, size in zip(box, (w, h, w, h), strict=True)
    )
    margin = max(4, round(w / 100))
    for thick, colour in ((5, (20, 20, 20)), (2, AXES[0])):
        cv2.rectangle(out, (left - margin, top - margin), (right + margin, bottom + margin), colour,
                      thick, cv2.LINE_AA)  # fmt: skip
    return out


def with_axes(frame: PoseFrame, camera: Camera) -> np.ndarray:
    """The frame with each pose's axes (x red, y green, z blue, 4 cm)."""
    out = frame.image.copy()
    view = camera.resized(out.shape[1], out.shape[0])
    thick = max(2, round(out.shape[1] / 220))
    for T in frame.poses.values():
        if not np.isfinite(T).all():
            continue
        ends = T[:3, 3] + AXIS_M * np.vstack([np.zeros(3), T[:3, :3].T])
        uv, z = view.project(ends)
        if (z <= 0.01).any():
            continue
        points = [tuple(int(c) for c in np.round(p)) for p in uv]
        # The farthest axis first, so that nearer ones lie on top.
        for i in np.argsort(-z[1:]):
            cv2.line(out, points[0], points[i + 1], AXES[i], thick, cv2.LINE_AA)
        cv2.circle(out, points[0], thick + 1, (255, 255, 255), -1, cv2.LINE_AA)
    return out


def with_grasps(
    image: np.ndarray, grasps: Sequence[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]],
    camera: Camera,
) -> np.ndarray:  # fmt: skip
    """The picture with what hands hold as dots and finger tips as rings.

    Args:
        grasps: areas (P, 3) and tips (F, 3) [m, world], NaN where a tip is not seen, and a colour.
    """
    out = image.copy()
    view = camera.resized(out.shape[1], out.shape[0])
    dot, ring = max(1, round(out.shape[1] / 320)), max(4, round(out.shape[1] / 100))
    for area_m, tips_m, colour in grasps:
        for points, radius, thick in ((area_m, dot, -1), (tips_m, ring, max(1, ring // 3))):
            uv, z = view.project(points[np.isfinite(points).all(1)])
            for at in np.round(uv[(z > 0.01) & (np.abs(uv) < 1e5).all(1)] - 0.5).astype(int):
                place = tuple(int(c) for c in at)
                if thick > 0:
                    # A dark rim, so that a ring is seen on what is of its colour.
                    cv2.circle(out, place, radius, (20, 20, 20), thick + 2, cv2.LINE_AA)
                cv2.circle(out, place, radius, colour, thick, cv2.LINE_AA)
    return out


def css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def loss_plot(r: Rollouts) -> str:
    """Best, median and spread of the loss per generation."""
    generations, at = _generations(r)
    figure, axes = _figure(8.4, 3.0, left=0.065, bottom=0.15)
    best = np.array([np.nanmin(r.loss[m]) for m in at])
    middle = np.array([np.nanmedian(r.loss[m]) for m in at])
    high = np.array([np.nanquantile(r.loss[m], 0.8) for m in at])
    axes.fill_between(generations, best, high, color=_ACCENT, alpha=0.13, lw=0)
    axes.plot(generations, middle, color=_INK, lw=1.2, alpha=0.55)
    axes.plot(generations, np.minimum.accumulate(best), color=_ACCENT, lw=2.2, marker="o", ms=4)
    axes.annotate("median", (generations[-1], middle[-1]), (6, 0), textcoords="offset points",
                  va="center", color=_INK)  # fmt: skip
    axes.annotate("best so far", (generations[-1], best.min()), (6, 0), va="center",
                  textcoords="offset points", color=_ACCENT)  # fmt: skip
    axes.set_xlabel("generation")
    axes.set_ylabel("loss")
    axes.set_xlim(generations[0] - 0.2, generations[-1] + max(1.0, 0.16 * len(generations)))
    return _svg(figure, "Loss over generations")


def term_plots(r: Rollouts) -> dict[str, str]:
    """One small plot a term: the value of each generation's best rollout, and the middle half."""
    generations, at = _generations(r)
    leader = [np.flatnonzero(m)[np.nanargmin(r.loss[m])] for m in at]
    plots = {}
    for name, values in r.terms.items():
        figure, axes = _figure(2.7, 1.5, left=0.16, bottom=0.14)
        low, high = (np.array([np.nanquantile(values[m], q) for m in at]) for q in (0.25, 0.75))
        axes.fill_between(generations, low, high, color=_INK, alpha=0.10, lw=0)
        axes.plot(generations, values[leader], color=_ACCENT, lw=1.8, marker="o", ms=3)
        axes.set_xticks([generations[0], generations[-1]])
        axes.locator_params(axis="y", nbins=3)
        plots[name] = _svg(figure, f"{name.replace('_', ' ')} over generations")
    return plots


def losses_together(runs: Mapping[str, Rollouts], colours: Mapping[str, str]) -> str:
    """The best loss so far of several searches, over the rollouts that each had made."""
    figure, axes = _figure(8.4, 3.0, left=0.065, bottom=0.15)
    for name, r in runs.items():
        at, best = _best_so_far(r.loss, r)
        axes.plot(at, best, color=colours[name], lw=2.0, drawstyle="steps-post",
                  marker="o" if len(at) == 1 else None, ms=4)  # fmt: skip
        axes.annotate(name, (at[-1], best[-1]), (6, 0), textcoords="offset points", va="center",
                      color=colours[name])  # fmt: skip
    axes.set_xlabel("rollouts")
    axes.set_ylabel("best loss so far")
    axes.margins(x=0.08)
    return _svg(figure, f"Best loss so far over rollouts, of {', '.join(runs)}")


def terms_together(runs: Mapping[str, Rollouts], colours: Mapping[str, str]) -> dict[str, str]:
    """One small plot a term: its value in the best rollout so far of each search that has it."""
    plots = {}
    for term in dict.fromkeys(t for r in runs.values() for t in r.terms):
        having = {n: r for n, r in runs.items() if term in r.terms}
        figure, axes = _figure(2.7, 1.5, left=0.16, bottom=0.14)
        for name, r in having.items():
            at, values = _best_so_far(r.terms[term], r)
            axes.plot(at, values, color=colours[name], lw=1.6, drawstyle="steps-post",
                      marker="o" if len(at) == 1 else None, ms=3)  # fmt: skip
        axes.locator_params(axis="both", nbins=3)
        words = f"{term.replace('_', ' ')} of the best rollout so far, of {', '.join(having)}"
        plots[term] = _svg(figure, words)
    return plots


def _best_so_far(values: np.ndarray, r: Rollouts) -> tuple[np.ndarray, np.ndarray]:
    """How many rollouts had been made when a better one than before came, and `values` of it; the last
    one stands until the end."""
    loss = np.where(r.failed | ~np.isfinite(r.loss), np.inf, r.loss)
    better = np.flatnonzero(loss < np.minimum.accumulate(np.r_[np.inf, loss[:-1]]))
    at = better + 1
    if at[-1] < len(loss):
        at, better = np.r_[at, len(loss)], np.r_[better, better[-1]]
    return at, values[better]


def _generations(r: Rollouts) -> tuple[np.ndarray, list[np.ndarray]]:
    """Generations with a finished rollout, and which rollouts those are."""
    ok = ~r.failed & np.isfinite(r.loss)
    generations = np.unique(r.generation[ok])
    return generations, [ok & (r.generation == g) for g in generations]


def _figure(width: float, height: float, *, left: float, bottom: float):
    """An empty plot; equal margins keep plots side by side aligned."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {
        "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": _FAINT, "xtick.color": _INK, "ytick.color": _INK, "text.color": _INK,
        "axes.labelcolor": _INK, "font.size": 9, "axes.linewidth": 0.8, "axes.grid": True,
        "grid.color": _FAINT, "grid.linewidth": 0.5, "axes.axisbelow": True,
        "xtick.major.size": 0, "ytick.major.size": 0, "svg.hashsalt": "lucibot",
    }  # fmt: skip
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(width, height))
        figure.subplots_adjust(left=left, bottom=bottom, right=0.98, top=0.96)
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    return figure, axes


def _svg(figure, words: str) -> str:
    """The figure as inline SVG whose colours and fonts the page's style decides; `words` for who cannot
    see it."""
    from matplotlib import pyplot as plt

    text = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lucibot"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for mark, variable in ((_INK, "--ink"), (_ACCENT, "--accent"), (_FAINT, "--rule")):
        svg = svg.replace(mark, f"var({variable})")
    svg = re.sub(r'font: ([^;"]*?)px [^;"]*', r"font-size: \1px", svg)
    opening = rf'<svg \1 role="img" aria-label="{escape(words)}">'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, svg, count=1)
