"""Pictures and texts by CLIP's two encoders, through transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucibot.core.needs import ensure_packages
from lucibot.providers.checkpoints import Checkpoint, torch_device, torch_dtype, within_memory
from lucibot.providers.embedder.config import ClipEmbedder

FLAG = "embedder"


class EmbedByClip:
    def __init__(self, config: ClipEmbedder):
        """
        Raises:
            UserError: a package or the checkpoint is not there, it is of another kind, there is no
                GPU, or too little memory.
        """
        ensure_packages(ClipEmbedder, f"{FLAG} clip")
        self.config = config
        self.device = torch_device(config.device, f"{FLAG}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.checkpoint = Checkpoint.find(
            config.model, flag=f"{FLAG}.model", kinds=("clip",),
            example="openai/clip-vit-base-patch32",
        )  # fmt: skip
        self.checkpoint.ensure_memory(self.device, self.dtype)
        self._prepare = self.checkpoint.image_processor()

    def embed(self, images: np.ndarray) -> np.ndarray:
        """See `Embedder`; the model is loaded for the call and freed after it.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
        """
        import torch

        out = []
        with within_memory(f"{FLAG}.model", self.device, f"a smaller {FLAG}.batch"):
            model = self._model()
            for start in range(0, len(images), self.config.batch):
                part = list(images[start : start + self.config.batch])
                given = self._prepare(images=part, return_tensors="pt").pixel_values
                with torch.inference_mode():
                    told = model.get_image_features(given.to(self.device, self.dtype))
                    vectors = torch.nn.functional.normalize(told.pooler_output.float(), dim=-1)
                out.append(vectors.cpu().numpy())
            size = model.config.projection_dim
            del model
        return np.concatenate(out) if out else np.zeros((0, size), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32 unit vectors of texts, in the space of pictures; what is longer than the model
        reads is cut off.

        Raises:
            UserError: the checkpoint cannot be loaded, or has no tokenizer; it runs out of memory.
        """
        import torch

        tokenizer = self.checkpoint.tokenizer()
        with within_memory(f"{FLAG}.model", self.device, "a smaller model"):
            model = self._model()
            longest = model.config.text_config.max_position_embeddings
            given = tokenizer(
                list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                told = model.get_text_features(**given)
                vectors = torch.nn.functional.normalize(told.pooler_output.float(), dim=-1)
        return vectors.cpu().numpy()

    def _model(self):
        from transformers import CLIPModel

        return self.checkpoint.load(CLIPModel, device=self.device, dtype=self.dtype)
