"""Pictures edited by a model behind OpenAI's images API, or a server that speaks it."""

from __future__ import annotations

import base64
import binascii
import io

import cv2
import numpy as np

from lucibot.core.errors import RunFailed, UserError
from lucibot.services.config import OPENAI, VlmConfig
from lucibot.services.keys import hidden, quoted, server_key
from lucibot.services.ledger import Ledger
from lucibot.services.services import NO_CLIENT


class ImageEditor:
    """
    Raises:
        UserError: the package openai is missing, or the key.
    """

    def __init__(self, config: VlmConfig, ledger: Ledger):
        try:
            import openai
        except ImportError:
            raise UserError(NO_CLIENT) from None
        self._openai, self._ledger = openai, ledger
        self.url = config.base_url or OPENAI
        self._client = openai.OpenAI(
            api_key=server_key(config), base_url=self.url, timeout=config.timeout_s, max_retries=0
        )

    def edited(
        self, picture: np.ndarray, prompt: str, *, model: str, usd: float | None
    ) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB as the prompt has it, of the same size.

        Args:
            usd: what it costs; None where that is not known.

        Raises:
            UserError: the server refuses the key, the model or the request.
            RunFailed: it cannot be reached or sends no picture; whether that is charged is not known.
        """
        openai = self._openai
        file = ("first_frame.png", io.BytesIO(_png(picture)), "image/png")
        with self._ledger.call(f"image {model}", usd=usd) as call:
            try:
                answer = self._client.images.edit(image=file, prompt=prompt, model=model)
            except openai.APIStatusError as e:
                call.void()  # An error is not charged.
                kind = RunFailed if e.status_code >= 500 or e.status_code == 429 else UserError
                body = e.body if isinstance(e.body, dict) else {}
                raise kind(
                    hidden(
                        f"{self.url} answers {e.status_code}: {quoted(str(body.get('message') or e))}"
                    )
                ) from None
            except openai.APIConnectionError as e:
                raise RunFailed(f"{self.url} did not answer ({quoted(str(e))})") from None
            try:
                found = cv2.imdecode(
                    np.frombuffer(base64.b64decode(answer.data[0].b64_json), np.uint8),
                    cv2.IMREAD_COLOR,
                )
            except (AttributeError, IndexError, TypeError, ValueError, binascii.Error, cv2.error):
                found = None
        if found is None:
            raise RunFailed(f"{self.url} sent no picture")
        size = (picture.shape[1], picture.shape[0])
        return cv2.resize(found, size, interpolation=cv2.INTER_AREA)[..., ::-1].copy()


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
