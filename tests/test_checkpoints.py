"""Checkpoints of local models: found, looked at, loaded, and what is said of those that are none."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from lucibot.core import video
from lucibot.core.errors import UserError
from lucibot.core.video import sha256_of
from lucibot.providers import checkpoints
from lucibot.providers.checkpoints import Checkpoint, torch_device, torch_dtype, within_memory
from lucibot.providers.depth import MonocularDepth
from lucibot.store.configs import settled

FLAG = "--perceive.depth.model"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8,
        patch_size=4,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def find(name, kinds=("clip_vision_model",), **more):
    return Checkpoint.find(str(name), flag=FLAG, kinds=kinds, **more)


def test_a_checkpoint_comes_back_as_it_was_saved(folder):
    saved = load_file(folder / "model.safetensors")
    model = find(folder).load(CLIPVisionModel, device=CPU, dtype=torch.float32)
    assert not model.training
    loaded = model.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in saved.items())
    half = find(folder).load(CLIPVisionModel, device=CPU, dtype=torch.bfloat16)
    assert next(half.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "give a checkpoint's folder"),
        ("./nowhere", "no such folder"),
        ("not a name/at all", "neither a folder nor a name on the hub"),
        ("somebody/something", "`hf download somebody/something`"),
        ("nobody", "no such folder"),
    ],
)
def test_a_name_of_nothing(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as e:
        find(name, example="a/b")
    assert FLAG in str(e.value) and "such as a/b" in str(e.value) and "\n" not in str(e.value)


def test_folders_that_hold_no_checkpoint(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither a config\.json nor a model_index"):
        find(tmp_path / "empty")
    with pytest.raises(UserError, match=r"wrong kind, clip_vision_model; expected sam2_video"):
        find(folder, kinds=("sam2_video",))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        find(folder)
    with pytest.raises(UserError, match="that is a file"):
        find(folder / "config.json")


def test_weights_that_are_missing_damaged_or_of_another_shape(folder):
    file = folder / "model.safetensors"
    whole = load_file(file)
    name = next(k for k in whole if "embeddings" in k)
    save_file({k: v for k, v in whole.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing"):
        find(folder).load(CLIPVisionModel, device=CPU, dtype=torch.float32)
    save_file(whole | {name: torch.zeros(3)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="cannot be loaded"):
        find(folder).load(CLIPVisionModel, device=CPU, dtype=torch.float32)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        find(folder).load(CLIPVisionModel, device=CPU, dtype=torch.float32)


def test_memory_is_asked_for_before_weights_are_loaded(folder, monkeypatch):
    numbers = sum(v.numel() for v in load_file(folder / "model.safetensors").values())
    needed = checkpoints.MARGIN * numbers * 2
    monkeypatch.setattr(checkpoints, "free_bytes", lambda device: needed + 1)
    find(folder).ensure_memory(CPU, torch.bfloat16)
    with pytest.raises(UserError, match="too little memory"):
        find(folder).ensure_memory(CPU, torch.float32)


def test_running_out_of_memory_is_the_users_to_mend():
    with pytest.raises(UserError, match="ran out of memory on cpu; half the width"):
        with within_memory(FLAG, CPU, "half the width"):
            raise RuntimeError(
                "DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"
            )
    with pytest.raises(RuntimeError, match="something else"):
        with within_memory(FLAG, CPU):
            raise RuntimeError("something else")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there():
    with pytest.raises(UserError, match=r"device cuda: there is no GPU here"):
        torch_device("cuda", "--perceive.depth.device")
    assert torch_device("auto", "--perceive.depth.device") == CPU
    assert torch_dtype("auto", CPU) == torch.float32


def test_a_hub_name_is_found_where_it_was_fetched(folder, tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--some--model"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    folder.rename(cache / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = find("some/model")
    assert found.folder == cache / "snapshots" / "abc"
    assert found.setting("config.json") == json.loads((found.folder / "config.json").read_text())


def test_a_checkpoint_counts_by_its_content_and_not_by_its_name(tmp_path, monkeypatch):
    def told(name: str) -> dict:
        return settled(MonocularDepth(model=name), sha256_of)

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "config.json").write_text("{}")
    (here / "model.safetensors").write_bytes(bytes(range(100)))
    shutil.copytree(here, there)
    assert told(str(here)) == told(str(there)) != told("owner/name")
    assert told("owner/name")["model"] == "owner/name"
    for large in (100, 99):  # Of large files size and ends are read.
        monkeypatch.setattr(video, "LARGE_BYTES", large)
        monkeypatch.setattr(video, "END_BYTES", 10)
        before = told(str(here))
        for at in (95, 5):
            changed = bytearray((here / "model.safetensors").read_bytes())
            changed[at] ^= 1
            (there / "model.safetensors").write_bytes(changed)
            assert told(str(there)) != before
        (there / "model.safetensors").write_bytes(bytes(range(99)) + b"xy")
        assert told(str(there)) != before
