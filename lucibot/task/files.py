"""The files of a task folder: texts, meshes with all that they refer to, and nothing outside."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from lucibot.core.errors import UserError

MESH_ENDINGS = (".obj", ".ply", ".stl", ".off", ".glb", ".gltf")


def within(folder: Path, relative: str) -> Path:
    """The path of a file in a task folder.

    Raises:
        UserError: it is not there, or not in the folder. A task is one folder that can be handed
            on; a path that leaves it could bring any picture on the disk into a report.
    """
    path = folder / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"task {folder.name!r}: {relative} is not in the task folder {folder}; copy the file "
            "there and give its path from there"
        )
    if not path.is_file():
        raise UserError(f"task {folder.name!r}: {relative} is missing from {folder}")
    return path


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: it is not UTF-8, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(
            f"{path}: byte {e.start} is no UTF-8 text; save the file as UTF-8"
        ) from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's values.

    Raises:
        UserError: it cannot be read, or is no TOML; the message says where.
    """
    try:
        return tomllib.loads(read_text(path))
    except ValueError as e:  # Besides its own error, what Python says of a number too long to read.
        raise UserError(f"{path}: {e}") from None
    except RecursionError:
        raise UserError(f"{path}: arrays or tables lie too deeply in each other") from None


class FolderResolver:
    """Gives trimesh what a mesh file refers to, from within the task folder, and remembers it."""

    def __init__(self, folder: Path, mesh: Path):
        self.folder, self.mesh = folder.resolve(), mesh
        self.file_name = mesh.name
        self.read: dict[str, str] = {}
        """Name as the mesh gives it -> sha256 of the file, or why it could not be read."""
        self.left: list[str] = []
        """Names of files outside of the folder."""

    def get(self, name: str) -> bytes:
        """
        Raises:
            FileNotFoundError: there is no such file in the folder.
        """
        path = (self.mesh.parent / name.strip()).resolve()
        if not path.is_relative_to(self.folder):
            self.left.append(name)
        elif path.is_file():
            data = path.read_bytes()
            self.read[name] = hashlib.sha256(data).hexdigest()
            return data
        self.read[name] = "missing"
        raise FileNotFoundError(name)

    __getitem__ = get


def read_mesh(folder: Path, relative: str, *, process: bool = False):
    """A mesh file of a task folder, all its parts in one, and what it was read from.

    Args:
        process: merge vertices that coincide.

    Returns:
        the `trimesh.Trimesh` as it is in the file, and file name -> sha256 of the file itself and
        of all that it refers to: material libraries, textures, buffers.

    Raises:
        UserError: the file is missing, no mesh, or refers to files outside of the folder.
    """
    import trimesh

    path = within(folder, relative)
    where = f"task {folder.name!r}: {relative}"
    if path.suffix.lower() not in MESH_ENDINGS:
        raise UserError(
            f"{where} has no ending of a mesh file; those are {', '.join(MESH_ENDINGS)}"
        )
    resolver = FolderResolver(folder, path)
    try:
        mesh = trimesh.load(path, force="mesh", process=process, resolver=resolver)
        mine = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as e:  # Its parsers raise whatever a broken file makes of their own code.
        raise UserError(
            f"{where} cannot be read as a mesh ({type(e).__name__}: {_line(e)}); export it anew"
        ) from e
    if resolver.left:
        raise UserError(
            f"{where} refers to {resolver.left[0]}, which is not in the task folder {folder}; "
            "copy it there"
        )
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise UserError(f"{where} holds no faces; export it anew, as a triangle mesh")
    return mesh, {"": mine, **resolver.read}


def _line(e: Exception) -> str:
    return (str(e).strip().splitlines() or ["no more is said"])[0][:120]
