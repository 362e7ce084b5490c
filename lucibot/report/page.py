"""Writes `report.html`: one file with everything inside that opens anywhere."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lucibot.report import art
from lucibot.report.data import ReportData

TEMPLATES = Path(__file__).parent


def write_report(data: ReportData, out: Path) -> None:
    """Write the page to `out`, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="lucibot_report_") as scratch:
        write_page("page.html.j2", Path(out), d=data, **_pieces(data, Path(scratch)))


def write_page(template: str, out: Path, **pieces: Any) -> None:
    """Write a template's page to `out`, whole or not at all."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    html = environment.get_template(template).render(**pieces)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    part.write_text(html)
    part.replace(out)


def _pieces(data: ReportData, scratch: Path) -> dict:
    """Pictures, videos and plots, by the names that the template uses."""
    r = data.rollouts
    finished = r is not None and r.any_finished
    seconds = sum(t.seconds for t in data.timings if not t.taken_over)
    return {
        "first_frame": None if data.first_frame is None else art.jpeg(data.first_frame, 1000),
        "candidate_videos": [
            None if c.video is None else art.mp4(c.video, scratch) for c in data.candidates
        ],
        "candidate_pictures": [
            [(art.jpeg(image, art.TILE_WIDTH), words) for image, words in c.pictures]
            for c in data.candidates
        ],
        "legend": [
            (name, art.css(art.PALETTE[i % len(art.PALETTE)]))
            for i, name in enumerate(data.objects)
        ],
        "hand_color": art.css(art.HAND),
        "mask_tiles": [art.jpeg(art.with_masks(m), art.TILE_WIDTH) for m in data.masks],
        "pose_tiles": [
            art.jpeg(art.with_axes(p, data.camera), art.TILE_WIDTH)
            for p in (data.poses if data.camera is not None else ())
        ],
        "keyframe_tiles": [art.jpeg(i, art.TILE_WIDTH) for i in data.keyframe_images],
        "loss_plot": art.loss_plot(r) if finished else None,
        "term_plots": art.term_plots(r) if finished else {},
        "n_failed": int(r.failed.sum()) if r is not None else 0,
        "comparisons": [
            (c, art.jpeg(c.video, 520), art.jpeg(c.simulation, 520)) for c in data.comparisons
        ],
        "film": None if data.film is None else art.mp4(data.film, scratch),
        "robot_film": (
            None
            if data.robot is None or data.robot.film is None
            else art.mp4(data.robot.film, scratch)
        ),
        "chosen_video": (
            None if data.chosen_video is None else art.mp4(data.chosen_video, scratch)
        ),
        "total_seconds": seconds,
        "longest": max([t.seconds for t in data.timings], default=1.0) or 1.0,
    }
