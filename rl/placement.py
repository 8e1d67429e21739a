"""What a run will ask of the cluster and of the judge, worked out and checked before anything starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import ClusterSection, RlRun
from owlcap.errors import PlacementError
from owlcap.models.attention import described
from owlcap.models.load import may_be_model
from rewards.catalogue import judge_calls
from rl.nodes import ROUNDING, ActorPlan, Layout, Node, lay_out
from rl.reference import Reference, reference_of
from rl.state import PromptOrder, num_steps

if TYPE_CHECKING:
    from rich.columns import Columns

TABLE_WIDTH = 100
NODE_WIDTH = 48


@dataclass(frozen=True, slots=True)
class Resources:
    """The nodes that there are to place actors on."""

    nodes: tuple[Node, ...]
    what: str  # "this machine", or "the Ray cluster (3 nodes)"
    with_judges: bool = True  # a judge's server beside Ray runs on these; a joined Ray does not see its GPUs

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Actors, work of a step, and judge calls. `num_steps` is None where the training data cannot be read."""

    actors: tuple[ActorPlan, ...]
    num_nodes: int
    resources: Resources | None  # None: a cluster that this process has not joined
    prompts_per_step: int
    sequences_per_step: int
    sampled_tokens_per_step: int  # at most
    learner_tokens_per_step: int  # at most, packed
    num_steps: int | None
    judge: str
    judge_calls_per_step: int
    judge_calls_per_evaluation: int
    num_evaluations: int | None
    notes: tuple[str, ...] = ()

    @property
    def cpus(self) -> float:
        """CPUs of all actors."""
        return sum(actor.count * actor.cpus for actor in self.actors)

    @property
    def gpus(self) -> float:
        """GPUs of all actors."""
        return sum(actor.count * actor.gpus for actor in self.actors)

    @property
    def judge_calls(self) -> int | None:
        """Judge calls of the whole run, evaluations included; retries come on top."""
        if self.num_steps is None or self.num_evaluations is None:
            return None
        return self.num_steps * self.judge_calls_per_step + self.num_evaluations * self.judge_calls_per_evaluation

    @property
    def placed(self) -> tuple[ActorPlan, ...]:
        """Actors that must find room in what is there."""
        with_judges = self.resources is None or self.resources.with_judges
        return tuple(actor for actor in self.actors if with_judges or not actor.beside_ray)

    @property
    def layout(self) -> Layout | None:
        """Which actors go on which node, where the nodes are known."""
        return lay_out(self.placed, self.resources.nodes) if self.resources else None

    @property
    def shortage(self) -> str | None:
        """What is asked for and not there, or None."""
        have = self.resources
        if have is None:
            return None
        short = []
        gpus = sum(actor.count * actor.gpus for actor in self.placed)
        cpus = sum(actor.count * actor.cpus for actor in self.placed)
        if gpus > have.gpus + ROUNDING:
            short.append(f"{gpus:g} GPUs asked for, {have.gpus} there")
        if cpus > have.cpus + ROUNDING:
            short.append(f"{cpus:g} CPUs asked for, {have.cpus:g} there")
        return "; ".join(short) or (self.layout.missing if self.layout else None)

    def check(self) -> None:
        """Raise PlacementError if the resources are known and do not suffice."""
        if self.shortage and self.resources:
            raise PlacementError(
                f"{self.resources.what} cannot hold the run: {self.shortage}",
                where="cluster.*: " + ", ".join(f"{a.count} x {a.role} ({a.each} each)" for a in self.placed),
                allowed="what its nodes have: "
                + ", ".join(f"{node.name}: {node.cpus:g} CPU, {node.gpus} GPU" for node in self.resources.nodes),
                cure="lower cluster.learner_ranks, rollout_workers, tensor_parallel, motion_actors or cpus_per_*, let "
                "learner and engines share GPUs (cluster.colocate), run judges elsewhere (cluster.judge_servers=0), or "
                "join a larger cluster with cluster.ray_address; `owlcap rl CONFIG --dry-run` shows the plan",
            )


def plan(cfg: RlRun, resources: Resources | None = None) -> PlacementPlan:
    """Work out a run's needs from its settings.

    Args:
        resources: null: this machine, or for a cluster the nodes that cluster.* describes.
    """
    if resources is None:
        resources = this_machine() if cfg.cluster.ray_address is None else _described(cfg.cluster)
    rollout = cfg.rollout
    sequences = rollout.prompts_per_step * rollout.group_size
    sampled = sequences * rollout.max_new_tokens
    steps = _num_steps(cfg)
    judge = cfg.rewards.judge
    evaluation = cfg.evaluation
    captions = evaluation.num_clips * (2 if evaluation.sampled else 1) if evaluation.data else 0
    return PlacementPlan(
        actors=_actors(cfg),
        num_nodes=cfg.cluster.num_nodes,
        resources=resources,
        prompts_per_step=rollout.prompts_per_step,
        sequences_per_step=sequences,
        sampled_tokens_per_step=sampled,
        learner_tokens_per_step=rollout.prompts_per_step * cfg.data.max_prompt_tokens + sampled,
        num_steps=steps,
        judge=f"{judge.model} at {', '.join(judge.base_urls)}" if judge.kind == "openai" else "lexical, offline",
        judge_calls_per_step=judge_calls(cfg.rewards, sequences, rollout.prompts_per_step),
        judge_calls_per_evaluation=judge_calls(cfg.rewards, captions, evaluation.num_clips) if captions else 0,
        num_evaluations=None if steps is None else _num_evaluations(cfg, steps),
        notes=_notes(cfg),
    )


def render_plan(cfg: RlRun, resources: Resources | None = None) -> str:
    """The plan as text for `--dry-run`: a table of actors, and the work and judge calls of a step and a run."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    p = plan(cfg, resources)
    actors = Table("actor", "count", "CPUs each", "GPUs each", "does", box=box.SIMPLE_HEAD, title="Placement")
    for actor in p.actors:
        actors.add_row(actor.role, str(actor.count), f"{actor.cpus:g}", f"{actor.gpus:g}", actor.does)
    have = p.resources
    there = f"{have.what} has {have.cpus:g} CPUs, {have.gpus} GPUs" if have else "cluster not joined yet"
    nodes = f"{p.num_nodes} node{'s' if p.num_nodes > 1 else ''}; {there}"
    actors.add_row("all", str(sum(a.count for a in p.actors)), f"{p.cpus:g}", f"{p.gpus:g}", nodes, style="bold")
    drawn = _draw(p)
    work = Table("", "a step", "the run", box=box.SIMPLE_HEAD, title="Work")
    for name, count in (
        ("prompts", p.prompts_per_step),
        ("sequences", p.sequences_per_step),
        ("sampled tokens, at most", p.sampled_tokens_per_step),
        ("learner tokens, at most", p.learner_tokens_per_step),
    ):
        work.add_row(name, f"{count:,}", _times(count, p.num_steps))
    calls = "unknown" if p.judge_calls is None else f"{p.judge_calls:,}"
    work.add_row("judge calls", f"{p.judge_calls_per_step:,}", f"{calls} (evaluations included)")
    work.add_row("steps", "1", "unknown" if p.num_steps is None else f"{p.num_steps:,}", style="bold")
    console = Console(file=StringIO(), width=TABLE_WIDTH, force_terminal=False)
    console.print(actors, *drawn, work, f"judge: {p.judge}", highlight=False, soft_wrap=False)
    for note in (*p.notes, *([f"will not start: {p.shortage}"] if p.shortage else [])):
        console.print(f"note: {note}", highlight=False)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n") + "\n"


def this_machine() -> Resources:
    """CPUs and NVIDIA GPUs of this machine, as a local Ray will count them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    gpus = found if visible is None else min(found, len([part for part in visible.split(",") if part.strip()]))
    return Resources((Node("this machine", len(os.sched_getaffinity(0)), gpus),), what="this machine")


def joined_cluster() -> Resources:
    """CPUs and GPUs of the Ray cluster that this process has joined."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = tuple(
        Node(
            f"{node['NodeManagerAddress']} {node['NodeID'][:6]}",
            resources.get("CPU", 0.0),
            int(resources.get("GPU", 0)),
        )
        for node in alive
        for resources in (node["Resources"],)
    )
    return Resources(
        nodes, what=f"the Ray cluster ({len(nodes)} node{'s' if len(nodes) > 1 else ''})", with_judges=False
    )


def _described(cluster: ClusterSection) -> Resources | None:
    """The nodes of a cluster that is not joined yet, if the settings say what each has."""
    if cluster.cpus_per_node is None or cluster.gpus_per_node is None:
        return None
    nodes = (Node(f"node {i}", cluster.cpus_per_node, cluster.gpus_per_node) for i in range(cluster.num_nodes))
    return Resources(tuple(nodes), what=f"a cluster as described ({cluster.num_nodes} nodes)")


def _draw(p: PlacementPlan) -> list[Columns]:
    """A box a node, with its actors; nothing where the nodes are not known."""
    from rich.columns import Columns
    from rich.panel import Panel

    if p.resources is None or p.layout is None:
        return []
    actors = {actor.role: actor for actor in p.actors}
    boxes = []
    for node in p.resources.nodes:
        lines = [f"{share.count} x {share.role} ({actors[share.role].each})" for share in p.layout.on(node.name)]
        boxes.append(
            Panel("\n".join(lines) or "-", title=f"{node.name}: {node.cpus:g} CPU, {node.gpus} GPU", width=NODE_WIDTH)
        )
    return [Columns(boxes)]


def evaluates_at(cfg: RlRun, step: int, last_step: int) -> bool:
    """Whether the policy is evaluated after `step` updates: at the start if asked, every K steps, and at the end."""
    if cfg.evaluation.data is None:
        return False
    if step == 0:
        return cfg.evaluation.at_start
    return step % cfg.evaluation.every_steps == 0 or step == last_step


def _num_evaluations(cfg: RlRun, steps: int) -> int:
    return sum(evaluates_at(cfg, step, steps) for step in range(steps + 1))


def _num_steps(cfg: RlRun) -> int | None:
    path = Path(cfg.data.train)
    if not path.is_file():
        return cfg.num_steps
    with path.open(encoding="utf-8", errors="replace") as file:
        num_rows = sum(1 for line in file if line.strip())
    return num_steps(cfg, PromptOrder(num_rows, cfg.rollout.prompts_per_step, cfg.seed).steps_per_epoch)


def _actors(cfg: RlRun) -> tuple[ActorPlan, ...]:
    """Every kind in the order in which room is found for it, those with GPUs first."""
    c = cfg.cluster
    learner = ActorPlan("learner", c.learner_ranks, c.cpus_per_learner, c.gpus_per_learner, _learner(cfg))
    rollout = ActorPlan("rollout", c.rollout_workers, c.cpus_per_rollout, c.gpus_per_rollout, _engine(cfg))
    both = ActorPlan(
        "learner + rollout",
        c.learner_ranks,
        c.cpus_per_learner + c.cpus_per_rollout,
        1,
        f"in turns on one GPU: {learner.does}; {rollout.does}",
    )
    judge = f"{cfg.rewards.judge.model}; its server beside Ray, started by you"
    others = (
        ActorPlan("judge", c.judge_servers, c.cpus_per_judge, c.gpus_per_judge, judge, beside_ray=True),
        ActorPlan("motion", c.motion_actors, c.cpus_per_motion, c.gpus_per_motion, "overlays of the motion pathway"),
        ActorPlan("reward", c.reward_workers, c.cpus_per_reward, 0, _rewards(cfg)),
    )
    first = (both,) if c.colocate else (learner, rollout)
    return tuple(actor for actor in (*first, *others) if actor.count)


def _learner(cfg: RlRun) -> str:
    model = cfg.model
    parts = [f"DeepSpeed ZeRO-{cfg.deepspeed.zero_stage}", model.dtype]
    if model.lora is not None:
        parts.append(f"LoRA of rank {model.lora.rank}")
    reference = reference_of(model, cfg.motion, cfg.algorithm.kl_beta, cfg.reference_model)
    if reference is not Reference.NONE:
        parts.append(reference)
    return (
        f"{', '.join(parts)}; {cfg.algorithm.tokens_per_micro_batch:,} tokens a forward; "
        f"{described(model.attention, cfg.cluster.gpus_per_learner > 0)}"
    )


def _engine(cfg: RlRun) -> str:
    kind = f"vLLM, tensor parallel {cfg.cluster.tensor_parallel}" if cfg.cluster.gpus_per_rollout else "vLLM on CPU"
    transfer = cfg.cluster.settled(cfg.pipeline.mode).weight_transfer.replace("_", " ")
    return f"{kind}; {cfg.rollout.max_num_seqs} sequences at a time; weights by {transfer}"


def _rewards(cfg: RlRun) -> str:
    return " + ".join(f"{term.weight:g} x {term.name}" for term in cfg.rewards.terms)


def _times(count: int, steps: int | None) -> str:
    return "unknown" if steps is None else f"{count * steps:,}"


def _notes(cfg: RlRun) -> tuple[str, ...]:
    notes = []
    longest = cfg.data.max_prompt_tokens + cfg.rollout.max_new_tokens
    if longest > cfg.algorithm.tokens_per_micro_batch:
        notes.append(
            f"one prompt with one completion may have {longest:,} tokens, more than algorithm.tokens_per_micro_batch "
            f"({cfg.algorithm.tokens_per_micro_batch:,}); such a pair is one forward by itself"
        )
    if cfg.cluster.ray_address is not None and _described(cfg.cluster) is None:
        notes.append(
            "cluster.cpus_per_node and gpus_per_node are not set, so it cannot be shown what goes on which node"
        )
    if cfg.cluster.colocate and cfg.deepspeed.zero_stage in (0, 3) and not cfg.deepspeed.offload_params:
        notes.append(
            f"at ZeRO-{cfg.deepspeed.zero_stage} DeepSpeed cannot move the learner's states off the GPU while the "
            "engine has its turn: set deepspeed.zero_stage=2, or 3 with offload_params and offload_optimizer, or leave "
            "room for both by rollout.gpu_memory_utilization"
        )
    judge = cfg.rewards.judge
    here = [url for url in judge.base_urls if any(name in url for name in ("127.0.0.1", "localhost"))]
    if judge.kind == "openai" and here and not cfg.cluster.judge_servers:
        notes.append(
            f"the judge at {here[0]} runs on these machines, and the plan leaves it no room: set "
            "cluster.judge_servers, gpus_per_judge and cpus_per_judge"
        )
    if cfg.cluster.motion_actors and not cfg.motion.enabled:
        notes.append("cluster.motion_actors are planned for, but motion.enabled is false: nothing would use them")
    files = {"data.train": cfg.data.train, "evaluation.data": cfg.evaluation.data}
    notes += [f"{key} ({file}) is not there yet" for key, file in files.items() if file and not Path(file).is_file()]
    models = {"model.path": cfg.model.path, "reference_model": cfg.reference_model}
    notes += [f"{key} ({path}) is not there yet" for key, path in models.items() if path and not may_be_model(path)]
    if _num_steps(cfg) is None:
        notes.append("the run's length is unknown until data.train is there")
    return tuple(notes)
