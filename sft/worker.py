"""One rank of supervised fine-tuning: features, optimizer steps, validation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from owlcap.config import DataSection, SftSection
from owlcap.data.prompts import vision_token_ids
from owlcap.data.row_file import Joined
from owlcap.errors import DataError
from owlcap.training.engine import StepStats
from owlcap.training.features import open_cache
from owlcap.training.worker import ONE_TO_ALL, TrainingSpec, TrainingWorker, WorkerReport, register
from sft.clips import ClipSource, Prepared
from sft.collate import SftBatch, SftItem, caption_loss, collate, epoch_batches, micro_batches, rank_share
from sft.plan import read_samples
from sft.unusable import BadClip

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class SftTask:
    """The data of a run and how it is batched."""

    data: DataSection
    sft: SftSection


@dataclass(frozen=True, slots=True)
class StepReport:
    """One rank's part of one optimizer step."""

    loss_sum: float  # over this rank's target tokens
    num_targets: int
    num_tokens: int  # of prompts and captions, without padding
    num_padded: int  # with padding
    num_sequences: int
    stats: StepStats
    bad: tuple[BadClip, ...]


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """One rank's part of a validation pass."""

    loss_sum: float
    num_targets: int
    bad: tuple[BadClip, ...]


class SftWorker(TrainingWorker):
    """Order of calls: `open`, `prepare` for every slice (frozen vision only), `start`, then steps."""

    def __init__(self, spec: TrainingSpec, task: SftTask) -> None:
        super().__init__(spec)
        self.task = task
        self._spare: SftItem | None = None

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def open(self) -> bool:
        """Load rows and policy. Returns whether clip features can be cached: open_cache."""
        self.train_rows, self.validation_rows = read_samples(self.task.data, self.task.sft, self.spec.seed)
        self._caption_lengths = [len(sample.caption) for sample in self.train_rows]
        self._model = self.load_model()
        cache = open_cache(self.spec.features, self._model)
        self._source = ClipSource(
            Joined(self.train_rows, self.validation_rows),
            self.processor,
            self.spec.video,
            self.task.data,
            cache,
            self.spec.motion,
        )
        self._masked_ids = vision_token_ids(self.processor)
        return cache is not None

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def prepare(self, start: int, stop: int) -> Prepared:
        """Compute this rank's share of the features of clips start..stop-1 (training rows, then validation rows)."""
        return self._source.compute_features(self._model, range(start + self.rank, stop, self.world_size))

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def start(self, use_cache: bool = True) -> WorkerReport:
        """Build the engine; after it clips come from the cache, or with `use_cache` false from their files."""
        if not use_cache:
            self._source.cache = None
        return self.build_engine(self._model)

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def train_step(self, epoch: int, batch: int) -> StepReport:
        """One optimizer step on batch number `batch` of an epoch."""
        started = time.perf_counter()
        share = self._share(epoch, batch)
        items, bad = self._source.take(share)
        self._source.ahead(self._share(epoch, batch + 1))
        batches = self._micro_batches(items)
        total, num_micro = self._agree(sum(b.num_targets for b in batches), len(batches))
        self.engine.train()
        loss_sum = torch.zeros((), device=self.engine.device)
        for turn in range(num_micro):
            loss = self._loss(batches, turn)
            loss_sum += loss.detach()
            self.engine.backward(loss / max(total, 1), last=turn == num_micro - 1)
        report = StepReport(
            loss_sum=float(loss_sum),
            num_targets=sum(b.num_targets for b in batches),
            num_tokens=sum(item.length for item in items),
            num_padded=sum(b.rows.num_tokens for b in batches),
            num_sequences=len(items),
            stats=self.engine.step(),
            bad=tuple(bad),
        )
        self.record([report.stats], report.num_padded, time.perf_counter() - started)
        return report

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def validate(self) -> ValidationReport:
        """Loss over this rank's share of the validation rows."""
        first = len(self.train_rows)
        indices = range(first + self.rank, first + len(self.validation_rows), self.world_size)
        loss_sum = torch.zeros((), device=self.engine.device)
        num_targets, bad = 0, []
        self.engine.eval()
        # Slices of one step's size, so that no more clips than that are held in memory.
        size = max(1, self.task.sft.batch_size // self.world_size)
        longest = -(-len(self.validation_rows) // self.world_size)
        for start in range(0, longest, size):
            items, unusable = self._source.take(indices[start : start + size])
            self._source.ahead(indices[start + size : start + 2 * size])
            bad += unusable
            batches = self._micro_batches(items)
            _, num_micro = self._agree(0, len(batches))
            num_targets += sum(b.num_targets for b in batches)
            with torch.no_grad():
                for turn in range(num_micro):
                    loss_sum += self._loss(batches, turn)
        return ValidationReport(float(loss_sum), num_targets, tuple(bad))

    def _share(self, epoch: int, batch: int) -> list[int]:
        """This rank's samples of a batch; none past the end of the epoch."""
        if getattr(self, "_plan_epoch", None) != epoch:
            self._plan = epoch_batches(
                self._caption_lengths, self.task.sft.batch_size, seed=self.spec.seed, epoch=epoch
            )
            self._plan_epoch = epoch
        if batch >= len(self._plan):
            return []
        return rank_share(self._plan[batch], self._caption_lengths, self.rank, self.world_size)

    def _micro_batches(self, items: Sequence[SftItem]) -> list[SftBatch]:
        parts = micro_batches([item.length for item in items], self.task.sft.tokens_per_micro_batch)
        return [self._collate([items[i] for i in part]) for part in parts]

    def _collate(self, items: Sequence[SftItem]) -> SftBatch:
        return collate(items, self._model.config, self._masked_ids).to(self.engine.device)

    def _agree(self, num_targets: int, num_micro: int) -> tuple[int, int]:
        """Target tokens of all ranks together, and the most micro batches of any (at least one)."""
        mine = torch.tensor([num_targets, num_micro], device=self.engine.device)
        each = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(each, mine)
        counts = torch.stack(each)
        return int(counts[:, 0].sum()), max(1, int(counts[:, 1].max()))

    def _loss(self, batches: Sequence[SftBatch], turn: int) -> torch.Tensor:
        """Loss of a turn's micro batch; a rank that has no more of them computes 0 on a spare, as collectives need."""
        if turn < len(batches):
            batch = batches[turn]
            return self.engine.run(lambda model: caption_loss(model, batch))  # type: ignore[arg-type]
        spare = self._collate([self._spare_item()])
        return 0.0 * self.engine.run(lambda model: caption_loss(model, spare))  # type: ignore[arg-type]

    def _spare_item(self) -> SftItem:
        """Any usable sample."""
        for index in range(len(self._source.samples)):
            if self._spare is None:
                items, _ = self._source.take([index])
                self._spare = items[0] if items else None
        if self._spare is None:
            raise DataError("no clip of the data can be used", where=self.task.data.train, cure="see the run's log")
        return self._spare
