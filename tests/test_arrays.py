"""Whatever has become of a file of arrays, its reader says so in one line that names it."""

from __future__ import annotations

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from lucibot.core.arrays import read_npy, read_npz
from lucibot.core.errors import LuciBotError, UserError
from lucibot.providers.depth import ReplayDepth
from lucibot.providers.hand import ReplayHand
from lucibot.providers.hand.command import read_hands
from lucibot.providers.tracker import ReplayTracker
from lucibot.providers.tracker.command import read_masks
from lucibot.providers.video.storyboard.morph import load_key_meshes
from lucibot.store.rollout import Rollout
from lucibot.vision.clip import Reading

VIDEO = SimpleNamespace(frames=np.zeros((2, 3, 4, 3), np.uint8))
READERS = {
    "masks": lambda path: read_masks(path, ("cup",), VIDEO),
    "key points": lambda path: read_hands(path, 2),
    "tracks": lambda path: ReplayTracker(file=path).create(),
    "hands": lambda path: ReplayHand(file=path).create(),
    "depth": lambda path: ReplayDepth(file=path).create(),
    "reading": Reading.load,
    "key meshes": load_key_meshes,
    "rollout": Rollout.load,
}
NAMES = ("cup", "keypoints_px", "confidence", "box_px", "shape", "valid_px", "vertices", "bodies")
"""What each of them reads first."""


def test_what_is_not_asked_for_is_not_read(tmp_path):
    np.savez(tmp_path / "some.npz", a=np.arange(3), notes=np.array({"by": "me"}, dtype=object))
    with read_npz(tmp_path / "some.npz", names=("a", "b")) as told:
        assert list(told) == ["a"]
    with pytest.raises(UserError, match=r"some\.npz is damaged"), read_npz(tmp_path / "some.npz"):
        pass


def test_any_byte_may_be_another(tmp_path):
    path = tmp_path / "some.npz"
    np.savez_compressed(path, a=np.arange(40.0), b=np.array("words"))
    content = path.read_bytes()
    errors = set()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x5A]) + content[i + 1 :])
        try:
            with read_npz(path) as told:
                assert set(told)
        except UserError as e:
            assert str(e).startswith(f"{path} is damaged") and "\n" not in str(e)
            errors.add(str(e))
    assert len(errors) > 10
    with pytest.raises(FileNotFoundError), read_npz(tmp_path / "none.npz"):
        pass
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.npz .*no array 'c'"), read_npz(path) as told:
        told["c"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no npy file"), (b"PK no zip", "no npy file"), (np.array(["a"]), "holds <U1"),
     (np.array([None]), "no npy file"), (np.array([1j]), "holds complex128"), ({"a": np.ones(2)}, "npz")],
)  # fmt: skip
def test_what_is_no_npy_file_of_numbers_is_one_line(content, why, tmp_path):
    path = tmp_path / "some.npy"
    with path.open("wb") as f:
        if isinstance(content, bytes):
            f.write(content)
        elif isinstance(content, dict):
            np.savez(f, **content)
        else:
            np.save(f, content)
    with pytest.raises(UserError, match=why) as e:
        read_npy(path)
    assert str(e.value).startswith(str(path)) and "\n" not in str(e.value)
    np.save(path, np.arange(3))
    assert read_npy(path).tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        read_npy(tmp_path / "none.npy")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_damage_is_one_line_wherever_it_is_read(read, tmp_path):
    path = tmp_path / "some.npz"
    np.savez_compressed(path, **{n: np.arange(100) for n in NAMES})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as z:
        for member in z.infolist():
            # There is no such kind of block in what is deflated.
            begin = member.header_offset + 30
            size = content[begin - 4] + content[begin - 2]  # Of the name, and of what follows it.
            content[begin + size] = 0xFF
    for left in (bytes(content), bytes(content[:-40]), b""):
        path.write_bytes(left)
        with pytest.raises(LuciBotError) as e:
            read(path)
        assert "\n" not in str(e.value)
    with path.open("wb") as f:
        np.save(f, np.arange(3))  # An npy file.
    with pytest.raises(LuciBotError):
        read(path)
