"""A body fitted to key points: pose, shape and place whose joints lie on the points when seen by the camera.

Letters of shapes: N frames, B joints, J key points, S shape numbers, D free numbers, K first guesses.

Levenberg-Marquardt on all frames at once. Unknowns are a small turn of every joint that carries a key point, the shape
and the place of the pelvis; the derivatives are written out (a turn of a joint moves what hangs on it along a circle),
so a step costs a few batched matrix products. Residuals, each in units of its usual size:

    key points   pixels / (PIXELS * box diagonal), times the confidence; Huber's beyond OUTLIER
    pose prior   turn of each joint away from a relaxed pose; knees and elbows bend one way only
    shape prior  shape numbers, first from zero, then from the clip's mean
    time prior   turn of each joint away from the frame it was started from, where there is one

A frame is first tried from K orientations (facing the camera, away, both sides) and goes on from the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from torch import Tensor

from motion.body.model import SYNTHETIC, Body
from motion.camera import Camera
from motion.pose.types import NAMES, SMPL24, BodyParameters, Layout, PoseTrack
from owlcap.config_motion import MeshSection

PIXELS = 0.005  # of the box diagonal: the usual error of a key point
OUTLIER = 10.0  # usual errors
LEAST_POINTS = 5  # visible ones, for a fit to mean anything
GUESS_STEPS = 8  # from each first guess, before the best goes on
LEAST_GAIN, IDLE_STEPS = 1e-3, 3  # a search ends after so many steps in which no cost fell by that share
SHAPE_STEPS = 10  # after the clip's mean shape is known
CLIP_SHAPE = 0.3  # how far shape numbers go from the clip's mean
YAWS = (0.0, 180.0, 90.0, -90.0)  # degrees; 0 faces the camera
WIDE, MEDIUM, STIFF, HINGE = 1.0, 0.5, 0.25, 0.15  # radians
SPREAD: dict[str, float] = {"shoulder": WIDE, "hip": WIDE, "elbow": 1.2, "knee": 1.2, "spine": STIFF, "collar": STIFF}
RELAXED = {  # turns of a relaxed pose against the T pose, radians
    "left_shoulder": (0.0, 0.0, -1.2),
    "right_shoulder": (0.0, 0.0, 1.2),
}
HINGES = {"left_knee": (0, 1), "right_knee": (0, 1), "left_elbow": (1, -1), "right_elbow": (1, 1)}  # axis, sign of bent


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found for each frame."""

    body: BodyParameters  # [N, ...]
    error_px: np.ndarray  # float32 [N]: mean distance of the visible key points; nan where there was no fit
    fitted: np.ndarray  # bool [N]: False where fewer than LEAST_POINTS key points are visible


@dataclass(frozen=True, slots=True)
class _State:
    """Where the search is; rows are frames."""

    rotations: Tensor  # [N, B, 3, 3]
    shape: Tensor  # [N, S]
    root: Tensor  # [N, 3]

    def rows(self, index: Tensor) -> _State:
        return _State(self.rotations[index], self.shape[index], self.root[index])


@dataclass(frozen=True, slots=True)
class _Goal:
    """What the rows are to match."""

    points: Tensor  # [N, J, 2] pixels
    weights: Tensor  # [N, J]: confidence, over the usual error in pixels
    shape: Tensor  # [N, S]
    shape_spread: float
    start: Tensor | None = None  # rotations [N, B, 3, 3] that the time prior holds to

    def rows(self, index: Tensor) -> _Goal:
        start = None if self.start is None else self.start[index]
        return replace(
            self, points=self.points[index], weights=self.weights[index], shape=self.shape[index], start=start
        )


def fit_bodies(
    body: Body,
    camera: Camera,
    layout: Layout,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    clips: np.ndarray,
    mesh: MeshSection,
    *,
    min_confidence: float = 0.5,
) -> Fit:
    """Fit every frame.

    Args:
        keypoints: float [N, J, 3] in the order of `layout`; points that the body does not name are left out.
        boxes: float [N, 4] of the person.
        clips: int [N]: frames of one clip are of one person and have one shape; they stand together and in order.
        mesh: steps and weights of the priors.
    """
    solver = _Solver(body, camera, layout, mesh)
    points = torch.from_numpy(keypoints[:, solver.sources]).double()
    visible = (points[..., 2] >= min_confidence) & (points[..., 2] > 0)
    sides = torch.from_numpy(np.asarray(boxes)).double()
    diagonal = (sides[:, 2:] - sides[:, :2]).norm(dim=-1).clamp(min=1.0)
    weights = torch.where(visible, points[..., 2], 0.0) / (PIXELS * diagonal[:, None])
    fitted = visible.sum(1) >= LEAST_POINTS
    state = solver.nothing(len(points))
    goal = _Goal(points[..., :2], weights, torch.zeros_like(state.shape), 1.0)
    owners = torch.from_numpy(np.asarray(clips))
    if fitted.any():
        rows = fitted.nonzero()[:, 0]
        found = _fit_in_time(solver, goal.rows(rows), owners[rows])
        for mine, theirs in zip((state.rotations, state.shape, state.root), _tensors(found), strict=True):
            mine[rows] = theirs
    error = ((solver.project(state) - goal.points).norm(dim=-1) * visible).sum(1) / visible.sum(1).clamp(min=1)
    parameters = BodyParameters(
        *(_array(part) for part in (roma.rotmat_to_rotvec(state.rotations), state.shape, state.root))
    )
    return Fit(parameters, np.where(fitted.numpy(), _array(error), np.nan), fitted.numpy())


def _fit_in_time(solver: _Solver, goal: _Goal, clips: Tensor) -> _State:
    """Every `anchor_every`-th frame of a clip from scratch, those between from the one before; then one shape."""
    place = torch.cat([torch.arange(int(count)) for count in clips.unique_consecutive(return_counts=True)[1]])
    first = torch.arange(len(place)) - place  # of each frame's clip
    anchor = first + place // solver.mesh.anchor_every * solver.mesh.anchor_every
    anchors, index = anchor.unique(return_inverse=True)
    state = solver.search(goal.rows(anchors)).rows(index)
    rest = (anchor != torch.arange(len(place))).nonzero()[:, 0]
    if len(rest):
        goal = replace(goal, start=state.rotations.clone())  # anchors are held where they are
        later = solver.descend(state.rows(rest), goal.rows(rest), solver.mesh.num_steps)[0]
        for mine, theirs in zip(_tensors(state), _tensors(later), strict=True):
            mine[rest] = theirs
    owners, owner = clips.unique(return_inverse=True)
    total = torch.zeros(len(owners), state.shape.shape[1], dtype=torch.float64).index_add_(0, owner, state.shape)
    mean = total / torch.bincount(owner)[:, None]
    shaped = replace(goal, shape=mean[owner], shape_spread=CLIP_SHAPE)
    return solver.descend(replace(state, shape=mean[owner]), shaped, SHAPE_STEPS)[0]


class _Solver:
    """The arithmetic of a search for one body, camera and layout of key points."""

    def __init__(self, body: Body, camera: Camera, layout: Layout, mesh: MeshSection) -> None:
        self.body, self.camera, self.mesh = body, camera, mesh
        known = {name: number for number, name in enumerate(body.point_names)}
        named = [(source, known[name]) for source, name in enumerate(NAMES[layout]) if name in known]
        self.sources = [source for source, _ in named]
        points = [point for _, point in named]
        places, added = (part.double().cpu() for part in body.point_template)
        self.rest, self.rest_added = places[points], added[points]
        self.joints, self.joints_added = places[: body.num_joints], added[: body.num_joints]
        self.carriers = torch.tensor([body.point_joints[point] for point in points])
        moved = self._ancestors()
        self.free = moved.any(0).nonzero()[:, 0]  # joints whose turn moves a key point
        self.moved = moved[:, self.free].double()  # [J, free]: whether the turn moves the key point
        self.parents = torch.tensor([max(parent, 0) for parent in body.parents])
        self._set_priors()

    def _ancestors(self) -> Tensor:
        """bool [J, B]: the joints on the way from the root to each key point, its own joint included."""
        found = torch.zeros(len(self.carriers), self.body.num_joints, dtype=torch.bool)
        for row, carrier in enumerate(self.carriers.tolist()):
            joint = carrier
            while joint >= 0:
                found[row, joint] = True
                joint = self.body.parents[joint]
        return found

    def _set_priors(self) -> None:
        names = [SMPL24[joint] if joint < 22 else "" for joint in range(self.body.num_joints)]
        relaxed = torch.tensor([RELAXED.get(name, (0.0, 0.0, 0.0)) for name in names], dtype=torch.float64)
        self.relaxed = roma.rotvec_to_rotmat(relaxed)
        spread = [next((s for part, s in SPREAD.items() if part in name), MEDIUM) for name in names]
        self.spread = torch.tensor(spread, dtype=torch.float64)[:, None].repeat(1, 3)
        self.bent = torch.zeros(self.body.num_joints, 3, dtype=torch.float64)  # the sign that a hinge may have
        for name, (axis, sign) in HINGES.items():
            joint = SMPL24.index(name)
            self.spread[joint] = torch.tensor([1.2 if place == axis else HINGE for place in range(3)])
            self.bent[joint, axis] = sign

    def nothing(self, count: int) -> _State:
        """A state for each row, of no meaning yet."""
        rotations = torch.eye(3, dtype=torch.float64).repeat(count, self.body.num_joints, 1, 1)
        return _State(
            rotations,
            torch.zeros(count, self.rest_added.shape[-1], dtype=torch.float64),
            torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64).repeat(count, 1),
        )

    def search(self, goal: _Goal) -> _State:
        """From each orientation some steps, then on from the best."""
        count = len(goal.points)
        index = torch.arange(count).repeat(len(YAWS))
        wide = goal.rows(index)
        guess = self._guesses(wide, torch.tensor(YAWS, dtype=torch.float64).repeat_interleave(count))
        state, cost = self.descend(guess, wide, GUESS_STEPS)
        best = cost.view(len(YAWS), count).argmin(0) * count + torch.arange(count)
        return self.descend(state.rows(best), goal, self.mesh.num_steps)[0]

    def _guesses(self, goal: _Goal, yaws: Tensor) -> _State:
        """A relaxed body turned by `yaws`, then in the picture, sized and placed to lie on the key points at best."""
        state = self.nothing(len(yaws))
        upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi, 0, 0], dtype=torch.float64))
        turn = torch.zeros(len(yaws), 3, dtype=torch.float64)
        turn[:, 1] = yaws.deg2rad()
        rotations = self.relaxed.repeat(len(yaws), 1, 1, 1)
        rotations[:, 0] = upright @ roma.rotvec_to_rotmat(turn)
        flat = self._points(replace(state, rotations=rotations, root=torch.zeros_like(state.root)))[0]
        shown, wanted = (
            torch.view_as_complex(flat[..., :2].contiguous()),
            torch.view_as_complex(goal.points.contiguous()),
        )
        share = goal.weights / goal.weights.sum(1, keepdim=True)
        middle, target = (share * shown).sum(1, keepdim=True), (share * wanted).sum(1, keepdim=True)
        factor = (share * (shown - middle).conj() * (wanted - target)).sum(1)
        factor = factor / (share * (shown - middle).abs() ** 2).sum(1)
        scale = factor.abs().clamp(min=1e-3)
        spin = torch.zeros(len(yaws), 3, dtype=torch.float64)
        spin[:, 2] = factor.angle()
        rotations[:, 0] = roma.rotvec_to_rotmat(spin) @ rotations[:, 0]
        depth = self.camera.focal / scale
        place = (target[:, 0] - factor * middle[:, 0] - complex(self.camera.center_x, self.camera.center_y)) / scale
        return replace(state, rotations=rotations, root=torch.stack([place.real, place.imag, depth], -1))

    def project(self, state: _State) -> Tensor:
        """Pixels [N, J, 2] of the key points."""
        return self.camera.project(self._points(state)[0])[..., :2]

    def _points(self, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        """Key points [N, J, 3], joints [N, B, 3] and world rotations [N, B, 3, 3]."""
        joints = self.joints + torch.einsum("bis,ns->nbi", self.joints_added, state.shape)
        rest = self.rest + torch.einsum("jis,ns->nji", self.rest_added, state.shape)
        turned, placed = self.body.chain(state.rotations, joints)
        placed = placed - placed[:, :1] + state.root[:, None]
        arm = (turned[:, self.carriers] @ (rest - joints[:, self.carriers])[..., None])[..., 0]
        return placed[:, self.carriers] + arm, placed, turned

    def _shape_moves(self, turned: Tensor) -> Tensor:
        """[N, J, 3, S]: how the shape numbers move the key points, the pelvis staying where it is."""
        count, size = len(turned), self.joints_added.shape[-1]
        moves = [torch.zeros(count, 3, size, dtype=torch.float64)]
        for joint, parent in enumerate(self.body.parents[1:], start=1):
            moves.append(moves[parent] + turned[:, parent] @ (self.joints_added[joint] - self.joints_added[parent]))
        arms = turned[:, self.carriers] @ (self.rest_added - self.joints_added[self.carriers])
        return torch.stack(moves, 1)[:, self.carriers] + arms

    def descend(self, state: _State, goal: _Goal, num_steps: int) -> tuple[_State, Tensor]:
        """Steps of Levenberg-Marquardt, fewer when no row gains any more; each row has its own damping.

        Returns:
            The state and its cost [N].
        """
        damping = torch.full((len(goal.points),), 1e-2, dtype=torch.float64)
        cost = self._cost(state, goal)
        idle = 0
        for _ in range(num_steps):
            hessian, gradient = self._normal_equations(state, goal)
            ridge = torch.diag_embed(hessian.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-6)
            tried = self._moved(state, -torch.linalg.solve(hessian + ridge, gradient))
            after = self._cost(tried, goal)
            better = after < cost  # a row that got nan or worse stays
            state = _State(*(_chosen(better, a, b) for a, b in zip(_tensors(tried), _tensors(state), strict=True)))
            idle = 0 if (after < (1 - LEAST_GAIN) * cost).any() else idle + 1
            cost = torch.where(better, after, cost)
            if idle == IDLE_STEPS:
                break
            damping = torch.where(better, damping / 4, damping * 6).clamp(1e-7, 1e6)
        return state, cost

    def _moved(self, state: _State, step: Tensor) -> _State:
        turns = step[:, : 3 * len(self.free)].unflatten(1, (-1, 3))
        length = turns.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        turns = turns * (length.clamp(max=0.6) / length)
        rotations = state.rotations.clone()
        rotations[:, self.free] = roma.rotvec_to_rotmat(turns) @ rotations[:, self.free]
        root, shape = step[:, 3 * len(self.free) :].split([3, state.shape.shape[1]], 1)
        placed = state.root + root
        return _State(rotations, state.shape + shape, torch.cat([placed[:, :2], placed[:, 2:].clamp(min=0.2)], 1))

    def _away(self, rotations: Tensor, base: Tensor) -> Tensor:
        """[N, free, 3]: turns from base rotations to these."""
        return roma.rotmat_to_rotvec(rotations[:, self.free] @ base[..., self.free, :, :].mT)

    def _pose_residuals(self, state: _State) -> tuple[Tensor, Tensor]:
        """[N, free, 3] turns away from the relaxed pose, and the inverse of their usual size; 0 for the root."""
        away = self._away(state.rotations, self.relaxed)
        spread = self.spread[self.free].expand_as(away)
        against = self.bent[self.free] * away < 0  # a hinge bent the wrong way
        inverse = self.mesh.pose_prior**0.5 / torch.where(against, HINGE / 2, spread)
        return away, inverse * (self.free != 0)[:, None]

    def _cost(self, state: _State, goal: _Goal) -> Tensor:
        apart = (self.project(state) - goal.points).norm(dim=-1) * goal.weights
        data = torch.where(apart < OUTLIER, apart**2, 2 * OUTLIER * apart - OUTLIER**2).sum(1)
        away, inverse = self._pose_residuals(state)
        cost = data + ((away * inverse) ** 2).sum((1, 2)) + self._shape_weight(goal) * self._shape_cost(state, goal)
        if goal.start is not None:
            cost = cost + self._time_weight() * (self._away(state.rotations, goal.start) ** 2).sum((1, 2))
        return torch.nan_to_num(cost, nan=torch.inf)

    def _shape_cost(self, state: _State, goal: _Goal) -> Tensor:
        return ((state.shape - goal.shape) ** 2).sum(1)

    def _shape_weight(self, goal: _Goal) -> float:
        return self.mesh.shape_prior / goal.shape_spread**2

    def _time_weight(self) -> float:
        return self.mesh.time_prior / MEDIUM**2

    def _normal_equations(self, state: _State, goal: _Goal) -> tuple[Tensor, Tensor]:
        """Hessian [N, D, D] and gradient [N, D] of half the cost, of turns (against the parent), place and shape."""
        points, joints, turned = self._points(state)
        depth = points[..., 2:]
        flat = points[..., :2] / depth
        focal = self.camera.focal
        residual = focal * flat + torch.tensor([self.camera.center_x, self.camera.center_y]) - goal.points
        apart = residual.norm(dim=-1) * goal.weights
        weight = goal.weights**2 * torch.where(apart > OUTLIER, OUTLIER / apart.clamp(min=1e-9), 1.0)
        lens = torch.cat([torch.eye(2, dtype=torch.float64).expand(*flat.shape, 2), -flat[..., None]], -1)
        lens = lens * (focal / depth)[..., None]  # [N, J, 2, 3]
        moves = torch.cat([self._turn_moves(points, joints, turned), self._place_moves(turned)], -1)  # [N, J, 3, D]
        jacobian = (lens @ moves).flatten(1, 2)
        weighted = jacobian * weight.repeat_interleave(2, 1)[..., None]
        hessian = weighted.mT @ jacobian
        gradient = (weighted.mT @ residual.flatten(1)[..., None])[..., 0]
        return self._with_priors(state, goal, hessian, gradient)

    def _turn_moves(self, points: Tensor, joints: Tensor, turned: Tensor) -> Tensor:
        """[N, J, 3, 3 * free]: key points under small turns of the free joints, each in its parent's axes."""
        arm = points[:, :, None] - joints[:, self.free][:, None]  # [N, J, free, 3]
        frame = turned[:, self.parents[self.free]]  # [N, free, 3, 3]
        root = (self.free == 0).nonzero()
        frame[:, root] = torch.eye(3, dtype=torch.float64)
        axes = frame.mT[:, None]  # rows: the axes in space
        moved = torch.cross(axes.expand(*arm.shape, 3), arm[..., None, :].expand(*arm.shape, 3), dim=-1)
        return (moved * self.moved[None, :, :, None, None]).flatten(2, 3).mT

    def _place_moves(self, turned: Tensor) -> Tensor:
        shape = self._shape_moves(turned)
        return torch.cat([torch.eye(3, dtype=torch.float64).expand(*shape.shape[:3], 3), shape], -1)

    def _with_priors(self, state: _State, goal: _Goal, hessian: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        away, inverse = self._pose_residuals(state)
        weights, pull = inverse**2, inverse**2 * away
        if goal.start is not None:
            weights = weights + self._time_weight()
            pull = pull + self._time_weight() * self._away(state.rotations, goal.start)
        shape = self._shape_weight(goal)
        place = torch.zeros(len(away), 3, dtype=torch.float64)
        diagonal = torch.cat([weights.flatten(1), place, torch.full_like(state.shape, shape)], 1)
        added = torch.cat([pull.flatten(1), place, shape * (state.shape - goal.shape)], 1)
        return hessian + torch.diag_embed(diagonal), gradient + added


def _tensors(state: _State) -> tuple[Tensor, Tensor, Tensor]:
    return state.rotations, state.shape, state.root


def _chosen(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *(1,) * (first.dim() - 1)), first, second)


def _array(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.float32)


def source_bodies(body: Body, tracks: Sequence[PoseTrack]) -> Fit:
    """The pose source's own SMPL parameters as a fit, for the frames that have a person.

    Joints that the body lacks are left out, those that the source lacks stay straight. A synthetic body keeps its
    average shape: its shape numbers mean other things than SMPL's.
    """
    parts = [track.body for track in tracks if track.body is not None]
    pose, shape, root = (np.concatenate([getattr(part, name) for part in parts]) for name in ("pose", "shape", "root"))
    shared = min(pose.shape[1], body.num_joints, 24 if body.num_joints == 24 else 22)
    fitted_pose = np.zeros((len(pose), body.num_joints, 3), np.float32)
    fitted_pose[:, :shared] = pose[:, :shared]
    if body.name == SYNTHETIC:
        shape = np.zeros_like(shape)
    present = np.concatenate([track.present for track in tracks])
    return Fit(BodyParameters(fitted_pose, shape, root), np.full(len(pose), np.nan, np.float32), present)


def vertices_of(body: Body, parameters: BodyParameters) -> Tensor:
    """Vertices [N, V, 3] in metres, float32 on the body's device."""
    pose, shape, root = (
        torch.from_numpy(part).to(body.device) for part in (parameters.pose, parameters.shape, parameters.root)
    )
    return body.vertices(roma.rotvec_to_rotmat(pose), shape, root)
