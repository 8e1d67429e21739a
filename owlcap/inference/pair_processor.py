"""vLLM's side of a pair: a custom logits processor (V1) that gives both rows of a pair the scores of MSD.

Each row says in `SamplingParams.extra_args` which pair and branch it is (`row_arguments`). Rows of a pair must take
every step together, which vLLM does not promise. So it is checked at every step: a row whose partner is not in the
batch, or has another number of tokens, gets a reserved token that ends it, by which owlcap.inference.lockstep knows
that it failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from motion.decoding import pair_scores
from owlcap.config_motion import DecodingSection

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate

KEY = "owlcap_pair"
Branch = Literal["visual", "motion"]


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What all rows of an engine share."""

    decoding: DecodingSection
    temperature: float
    absent_id: int  # drawn by a row whose partner is not in the batch
    out_of_step_id: int  # drawn by both rows of a pair of different lengths


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a pair in vLLM's batch."""

    pair: int
    branch: Branch
    seed: int
    settings: PairSettings
    output_ids: Sequence[int]  # vLLM's own list, which grows


def row_arguments(pair: int, branch: Branch, seed: int, settings: PairSettings) -> dict[str, Any]:
    """`extra_args` of a row's SamplingParams, in plain values."""
    return {
        KEY: {
            "pair": pair,
            "branch": branch,
            "seed": seed,
            "decoding": settings.decoding.model_dump(mode="json"),
            "temperature": settings.temperature,
            "absent_id": settings.absent_id,
            "out_of_step_id": settings.out_of_step_id,
        }
    }


class PairLogitsProcessor(LogitsProcessor):
    """MSD on the rows of whole pairs; other rows are left as they are."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}  # by place in the batch

    def is_argmax_invariant(self) -> bool:
        """No: which token is largest is the point."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow rows as they enter, leave and move in the batch."""
        process_dict_updates(self._rows, batch_update, _row_of)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [rows, vocabulary] with each pair's scores in both of its rows."""
        places: dict[int, dict[Branch, int]] = {}
        for place, row in self._rows.items():
            places.setdefault(row.pair, {})[row.branch] = place
        whole: dict[str, list[tuple[int, int]]] = {}  # pairs of equal settings are scored together
        for pair in places.values():
            rows = [self._rows[place] for place in pair.values()]
            settings = rows[0].settings
            if len(pair) < 2:
                _end(logits, pair.values(), settings.absent_id)
            elif len(rows[0].output_ids) != len(rows[1].output_ids):
                _end(logits, pair.values(), settings.out_of_step_id)
            else:
                key = f"{settings.temperature} {settings.decoding.model_dump_json()}"
                whole.setdefault(key, []).append((pair["visual"], pair["motion"]))
        for pairs in whole.values():
            self._score(logits, pairs)
        return logits

    def _score(self, logits: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> None:
        visual, motion = (torch.tensor(places, device=logits.device) for places in zip(*pairs, strict=True))
        rows = [self._rows[place] for place, _ in pairs]
        drawn = rows[0].settings.temperature > 0
        _, scores = pair_scores(
            logits[visual],
            logits[motion],
            rows[0].settings.decoding,
            temperature=rows[0].settings.temperature,
            seeds=tuple(row.seed for row in rows) if drawn else (),
            steps=tuple(len(row.output_ids) for row in rows) if drawn else (),
        )
        logits[visual] = logits[motion] = scores.to(logits.dtype)


def _end(logits: torch.Tensor, places: Iterable[int], token_id: int) -> None:
    """Let these rows draw nothing but `token_id`."""
    for place in places:
        logits[place] = float("-inf")
        logits[place, token_id] = 0.0


def _row_of(params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> _Row | None:
    """The row that a new request is; None for one without a pair."""
    values: Mapping[str, Any] | None = (params.extra_args or {}).get(KEY)
    if values is None:
        return None
    settings = PairSettings(
        DecodingSection.model_validate(values["decoding"]),
        float(values["temperature"]),
        int(values["absent_id"]),
        int(values["out_of_step_id"]),
    )
    return _Row(int(values["pair"]), values["branch"], int(values["seed"]), settings, output_ids)
