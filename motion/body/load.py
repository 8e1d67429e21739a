"""SMPL and SMPL-X from the user's files: .npz, or .pkl read without chumpy and without running what is in it."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from motion.body.model import SYNTHETIC, Body, SmplArrays
from motion.body.synthetic import synthetic_body
from motion.pose.source import existing_file
from owlcap.errors import ModelError

WHAT = "SMPL_NEUTRAL.pkl, SMPLX_NEUTRAL.npz or the like"
ORIGIN = "https://smpl.is.tue.mpg.de or https://smpl-x.is.tue.mpg.de, after registration"
LICENCE = "the SMPL body licence: research, not commercial"
SMPL_LANDMARKS = {"nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583}
SMPLX_LANDMARKS = {"nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6}
LANDMARKS = {24: SMPL_LANDMARKS, 52: SMPL_LANDMARKS, 55: SMPLX_LANDMARKS}  # by number of joints; 52: SMPL-H


def load_body(name: str, device: str = "cpu") -> Body:
    """The body that `motion.mesh.body` names: "synthetic", or a file.

    Raises:
        ModelError: there is no such file, or it does not hold an SMPL or SMPL-X body.
    """
    if name == SYNTHETIC:
        return synthetic_body(device)
    path = existing_file(name, "motion.mesh.body", f"{SYNTHETIC}, or {WHAT}", ORIGIN, LICENCE)
    arrays = read_arrays(path)
    num_joints = len(arrays.J_regressor)
    if num_joints not in LANDMARKS:
        raise ModelError(
            f"the body has {num_joints} joints",
            where=str(path),
            allowed="SMPL (24), SMPL-H (52) or SMPL-X (55)",
            cure=f"use {WHAT} from {ORIGIN}",
        )
    return Body(path.stem, arrays, LANDMARKS[num_joints], device)


def read_arrays(path: Path) -> SmplArrays:
    """The arrays of a file.

    Raises:
        ModelError: the file cannot be read, or lacks an array.
    """
    wanted = [part.name for part in fields(SmplArrays)]
    try:
        found = _read_npz(path, wanted) if path.suffix == ".npz" else _read_pickle(path)
    except (OSError, ValueError, pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError) as error:
        raise ModelError(
            f"the body model cannot be read: {error}", where=str(path), allowed=WHAT, cure=f"get it again from {ORIGIN}"
        ) from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ModelError(
            f"the body model lacks {', '.join(missing)}",
            where=str(path),
            allowed=", ".join(wanted),
            cure=f"use {WHAT} from {ORIGIN}",
        )
    return SmplArrays(**{name: _array(found[name]) for name in wanted})


def _read_npz(path: Path, wanted: list[str]) -> dict[str, Any]:
    with np.load(path) as file:  # never with allow_pickle: what is not a plain array is not read
        return {name: file[name] for name in wanted if name in file}


def _read_pickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = _ArraysOnly(file, encoding="latin1").load()
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    return found


class _Stub:
    """Stands for an object of a class that is not there (chumpy, scipy): keeps its state."""

    def __new__(cls, *_: object, **__: object):
        made = super().__new__(cls)
        made.state = {}
        return made

    state: dict[str, Any]

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays; chumpy's and scipy's objects become stubs; anything else is refused."""

    NUMPY = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"})
    PLAIN = frozenset(
        {
            ("copy_reg", "_reconstructor"),
            ("copyreg", "_reconstructor"),
            ("_codecs", "encode"),
            ("__builtin__", "object"),
        }
        | {("builtins", name) for name in ("object", "bytearray", "complex", "set")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("chumpy", "scipy"):
            return _Stub
        if (module.split(".")[0] == "numpy" and name in self.NUMPY) or (module, name) in self.PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which no body model needs")


def _array(value: Any) -> np.ndarray:
    """A plain array; of a chumpy object its values, of a sparse matrix the whole matrix."""
    if not isinstance(value, _Stub):
        return np.asarray(value)
    if "x" in value.state:  # chumpy.Ch
        return np.asarray(value.state["x"])
    if {"data", "indices", "indptr", "_shape"} <= value.state.keys():  # scipy's compressed columns or rows
        rows, columns = value.state["_shape"]
        starts = value.state["indptr"]
        by_column = len(starts) == columns + 1
        dense = np.zeros((columns, rows) if by_column else (rows, columns))
        dense[np.repeat(np.arange(len(starts) - 1), np.diff(starts)), value.state["indices"]] = value.state["data"]
        return dense.T if by_column else dense
    raise ModelError(
        "an array of the body model is of an unknown kind",
        where=", ".join(sorted(map(str, value.state))) or "an object without state",
        allowed="numpy arrays, chumpy.Ch, compressed matrices of scipy.sparse",
        cure="save the model as .npz with plain arrays",
    )
