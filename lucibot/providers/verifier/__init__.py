"""The verifier family. `VerifierConfig` is the closed union of its members."""

from __future__ import annotations

from lucibot.providers.verifier.config import PixelVerifier, VlmVerifier

VerifierConfig = PixelVerifier | VlmVerifier

__all__ = ["PixelVerifier", "VerifierConfig", "VlmVerifier"]
