"""Lets a CUDA-built torchvision be imported beside a CPU-only torch.

The registries' torchvision wheel is built for CUDA. Beside a CPU torch its extension cannot load, and
`import torchvision` then dies with "operator torchvision::nms does not exist", also in the subprocess in which
vLLM inspects models. Declaring the two operators' schemas first is enough: all that owlcap uses of torchvision
(resizing) is pure torch.

`make setup` copies this file into the environment as `_torchvision_cpu.py` with a `.pth` line that imports it at
start-up. It costs nothing until torchvision is imported, and does nothing when the extension loads. Remove it when
a CPU build of torchvision is in requirements/cpu.txt.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_keep_alive = []  # a torch.library.Library undoes its definitions when it is collected


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_operators()
        return None


def _declare_operators():
    import torch

    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if torch.version.cuda is not None or spec is None or spec.origin is None:
        return
    for extension in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
            return
        except (OSError, RuntimeError):  # linked against CUDA libraries that a CPU machine lacks
            break
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _keep_alive.append(library)


sys.meta_path.insert(0, _BeforeTorchvision())
