"""What draws the photoreal first frame; the union is the registry."""

from __future__ import annotations

from lucibot.providers.renderer.base import Renderer
from lucibot.providers.renderer.mitsuba import MitsubaRenderer
from lucibot.providers.renderer.photo import PhotoRenderer
from lucibot.providers.renderer.raster import RasterRenderer

RendererConfig = MitsubaRenderer | RasterRenderer | PhotoRenderer

__all__ = ["MitsubaRenderer", "PhotoRenderer", "RasterRenderer", "Renderer", "RendererConfig"]
