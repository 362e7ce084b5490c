"""Pictures as vectors: what is alike lies near, by colours and by CLIP with random weights."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

import lucibot
from lucibot.core.errors import UserError
from lucibot.providers.embedder import ClipEmbedder, ColourEmbedder


def picture(ball=(40, 60), colour=(200, 40, 40), light=1.0, size=(120, 160)) -> np.ndarray:
    out = np.full((*size, 3), (150, 140, 120), np.uint8)
    cv2.rectangle(out, (100, 20), (150, 90), (60, 90, 160), -1)
    cv2.circle(out, ball, 18, colour, -1)
    return np.clip(out * light, 0, 255).astype(np.uint8)


def test_colours_tell_a_scene_from_others_whatever_the_light():
    one, dark, moved, other = (
        picture(), picture(light=0.7), picture(ball=(130, 100)), picture(colour=(40, 190, 60)),
    )  # fmt: skip
    vectors = lucibot.embed(np.stack([one, dark, moved, other]))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    alike = vectors @ vectors[0]
    assert alike[0] == pytest.approx(1, abs=1e-5) and alike[1] > 0.95
    assert alike[1] > alike[2] + 0.05 and alike[1] > alike[3] + 0.05
    half = cv2.resize(one, (80, 60), interpolation=cv2.INTER_AREA)
    assert lucibot.embed(half[None])[0] @ vectors[0] > 0.97
    mirrored = lucibot.embed(one[None, :, ::-1])
    assert mirrored[0] @ vectors[0] < alike[1] - 0.05


def test_pictures_without_anything_are_unit_vectors_too():
    even = np.full((2, 30, 30, 3), 128, np.uint8)
    even[1] = 200
    vectors = lucibot.embed(even, ColourEmbedder(cells=2))
    assert np.isfinite(vectors).all() and vectors[0] @ vectors[1] == pytest.approx(1, abs=0.01)
    assert len(lucibot.embed(np.zeros((0, 8, 8, 3), np.uint8))) == 0


@pytest.mark.parametrize("images", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)),
                                    np.zeros((1, 4, 4, 4), np.uint8)])  # fmt: skip
def test_what_is_no_stack_of_pictures(images):
    with pytest.raises(UserError, match=r"embed takes images \(N, H, W, 3\) of uint8"):
        lucibot.embed(images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                  image_size=32, patch_size=8)  # fmt: skip
    text = dict(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=8)  # fmt: skip
    path = tmp_path_factory.mktemp("clip")
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=12))
    model.save_pretrained(path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(path)
    return path


def test_a_saved_clip_embeds(folder):
    images = np.stack([picture(), picture(ball=(130, 100)), picture(light=0.5)])
    vectors = lucibot.embed(images, ClipEmbedder(model=str(folder), batch=2, device="cpu"))
    assert vectors.shape == (3, 12) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    given = CLIPImageProcessorPil.from_pretrained(folder)(images=list(images), return_tensors="pt")
    with torch.no_grad():
        own = CLIPModel.from_pretrained(folder).get_image_features(**given).pooler_output
    own = own / own.norm(dim=-1, keepdim=True)
    assert vectors == pytest.approx(own.numpy(), abs=1e-5)
    none = lucibot.embed(images[:0], ClipEmbedder(model=str(folder), device="cpu"))
    assert none.shape == (0, 12)


def test_a_clip_that_is_not_there():
    with pytest.raises(UserError, match=r"embedder\.model nobody/clip: .*hf download nobody/clip"):
        lucibot.embed(np.zeros((1, 8, 8, 3), np.uint8), ClipEmbedder(model="nobody/clip"))
