"""A body drawn over a frame: shaded grey as in the paper, a colour for each body part, or its silhouette.

Letters of shapes: N frames, V vertices, F faces, H height, W width.
"""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from motion.body.model import Body
from motion.camera import Camera
from motion.rasteriser import Fragments, rasterise
from owlcap.config_motion import OverlaySection

LIGHT = (0.35, -0.55, -0.75)  # from the surface towards the light: above, beside and in front of the person
AMBIENT, DIFFUSE, FACING = 0.25, 0.6, 0.25  # shares of the light from all sides, from LIGHT, and from the camera
SILHOUETTE = (255, 255, 255)
NUM_PARTS = 24


def draw_bodies(
    frames: np.ndarray, body: Body, vertices: Tensor, drawn: np.ndarray, camera: Camera, overlay: OverlaySection
) -> np.ndarray:
    """Overlays, uint8 [N, H, W, 3].

    Args:
        frames: uint8 [N, H, W, 3], RGB.
        body: whose triangles they are.
        vertices: float [N, V, 3] in metres, x right, y down, z away from the camera.
        drawn: bool [N]: frames without a person stay as they are (or black).
        camera: of the frames.
        overlay: style, background, opacity.
    """
    height, width = frames.shape[1:3]
    below = frames if overlay.background == "frame" else np.zeros_like(frames)
    found = rasterise(camera.project(vertices), body.faces, height, width, cull=True)
    mask = found.mask & torch.from_numpy(drawn).to(vertices.device)[:, None, None]
    paint = _paint(found, mask, body, vertices, overlay).cpu().numpy()
    pictures, covered = below.copy(), mask.cpu().numpy()
    mixed = overlay.opacity * paint + (1 - overlay.opacity) * below[covered]
    pictures[covered] = mixed.round().astype(np.uint8)
    return pictures


def _paint(found: Fragments, mask: Tensor, body: Body, vertices: Tensor, overlay: OverlaySection) -> Tensor:
    """The body's colour at each pixel of the mask, float [pixels, 3]."""
    if overlay.style == "silhouette":
        return torch.tensor(SILHOUETTE, dtype=torch.float32).expand(int(mask.sum()), 3)
    light = shading(found, mask, body.faces, vertices)[:, None]
    if overlay.style == "parts":
        part = body.part_of_face[found.faces[mask]] % NUM_PARTS
        return part_colors().to(vertices.device)[part] * (0.5 + 0.5 * light)
    return (overlay.gray * light).expand(-1, 3)


def shading(found: Fragments, mask: Tensor, faces: Tensor, vertices: Tensor) -> Tensor:
    """How light the surface is at each pixel of the mask, float [pixels], 0 to 1, from smooth normals."""
    normals = vertex_normals(vertices, faces)
    corners = faces[found.faces[mask]]  # [pixels, 3]
    picture = mask.nonzero()[:, 0]
    normal = functional.normalize((normals[picture[:, None], corners] * found.weights[mask][..., None]).sum(-2), dim=-1)
    light = functional.normalize(torch.tensor(LIGHT, device=vertices.device), dim=0)
    diffuse = (normal @ light).clamp(min=0)
    return (AMBIENT + DIFFUSE * diffuse + FACING * (-normal[..., 2]).clamp(min=0)).clamp(max=1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Outward unit normals [N, V, 3]: of the triangles around each vertex, weighted by their areas."""
    corners = vertices[:, faces]
    across = torch.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=-1)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(1, faces[:, corner], across)
    return functional.normalize(total, dim=-1)


def part_colors() -> Tensor:
    """A colour for each of SMPL's 24 parts, float [24, 3]: hues far apart for parts that follow each other."""
    hues = [(number * 0.618034) % 1 for number in range(NUM_PARTS)]
    colors = [colorsys.hsv_to_rgb(hue, 0.75, 1.0) for hue in hues]
    return torch.tensor(colors) * 255
