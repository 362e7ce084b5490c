"""What the video model is told (paper, section 3.2): an artefact of its own, made once.

Candidates are bought for a prompt, so a new one is never made silently: where the run had another
before, that is noted.
"""

from __future__ import annotations

from lucibot.core.prompt import PROMPT, Prompt
from lucibot.core.scene_view import SceneView
from lucibot.pipeline import Context
from lucibot.store.run import write_json


def run(ctx: Context) -> None:
    """Writes `prompt.json`."""
    view = SceneView.load(ctx.inputs["scene"])
    writer = ctx.config.create(ctx.services)
    ctx.progress(f"writing the prompt ({writer.kind})")
    prompt = writer.write(ctx.task, view)
    for earlier in sorted(ctx.folder.parent.glob(f"*/{PROMPT}")):
        if Prompt.load(earlier.parent) != prompt:
            ctx.note(
                f"this prompt differs from the run's earlier one ({earlier.parent.name}): models "
                "that read it make their candidates anew"
            )
            break
    write_json(
        ctx.folder / PROMPT,
        {"kind": writer.kind, "text": prompt.text, "negative": prompt.negative},
    )
