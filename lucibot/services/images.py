"""Pictures edited by a model behind OpenAI's images API, or a server that speaks it."""

from __future__ import annotations

import base64
import binascii
import io
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from lucibot.core.errors import RunFailed, UserError
from lucibot.services.chat import OUT_OF_MONEY
from lucibot.services.config import OPENAI, VlmConfig
from lucibot.services.keys import hidden, quoted, server_key
from lucibot.services.ledger import Call, Ledger
from lucibot.services.retry import Again, GaveUp, retry_after, with_retries
from lucibot.services.services import NO_CLIENT


class ImageEditor:
    """
    Args:
        sleep: waits before another try [s].

    Raises:
        UserError: the package openai is missing, or the key.
    """

    def __init__(
        self, config: VlmConfig, ledger: Ledger, *, sleep: Callable[[float], None] = time.sleep
    ):
        try:
            import openai
        except ImportError:
            raise UserError(NO_CLIENT) from None
        self._openai, self._ledger = openai, ledger
        self._config, self._sleep = config, sleep
        self.url = config.base_url or OPENAI
        self._client = openai.OpenAI(
            api_key=server_key(config), base_url=self.url, timeout=config.timeout_s, max_retries=0
        )

    def edited(
        self, picture: np.ndarray, prompt: str, *, model: str, usd: float | None
    ) -> np.ndarray:
        """The picture (H, W, 3) uint8 RGB as the prompt has it, of the same size. What the server surely
        did not take is asked for again.

        Args:
            usd: what it costs; None where that is not known.

        Raises:
            UserError: the server refuses the key, the model or the request.
            RunFailed: it cannot be reached or sends no picture; whether that is charged is not known.
        """
        png = _png(picture)
        with self._ledger.call(f"image {model}", usd=usd) as call:
            try:
                answer = with_retries(
                    lambda: self._asked(png, prompt, model, call), tries=self._config.tries,
                    first_wait_s=self._config.first_wait_s, sleep=self._sleep,
                )  # fmt: skip
            except GaveUp:
                call.void()
                raise
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

    def _asked(self, png: bytes, prompt: str, model: str, call: Call) -> Any:
        """What the server sends.

        Raises:
            Again: it did not take the request. UserError, RunFailed: see `edited`.
        """
        openai, file = self._openai, ("first_frame.png", io.BytesIO(png), "image/png")
        try:
            return self._client.images.edit(image=file, prompt=prompt, model=model)
        except openai.APIStatusError as e:
            body = e.body if isinstance(e.body, dict) else {}
            words = quoted(str(body.get("message") or e))
            said = hidden(f"{self.url} answers {e.status_code}: {words}")
            if e.status_code == 429 and e.code not in OUT_OF_MONEY:
                raise Again(said, after_s=retry_after(e.response.headers)) from None
            call.void()  # An error is not charged.
            raise (RunFailed if e.status_code >= 500 else UserError)(said) from None
        except openai.APIConnectionError as e:
            # Of httpx or httpx2, whichever the client rests on.
            if type(e.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
                raise Again(f"{self.url} cannot be reached ({quoted(str(e.__cause__))})") from None
            raise RunFailed(f"{self.url} did not answer ({quoted(str(e))})") from None


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
