"""One vLLM engine in this process: requests in, caption groups out as each finishes, new weights in between.

    requests ──> RequestPreparer (threads: decode, process once a group) ──> vLLM (one request, n = G)
                                                                              │ step, step, step
    RolloutGroup | RolloutFailure  <── text, logprobs, version  <─────────────┘

Determinism. On a CPU every call starts with empty caches and takes in requests by a rule that looks at no clock: in
their order, as many as fit, before each step. The same requests with the same seeds and weights then give the same
batches, and the same tokens and logprobs bit for bit. (Measured on the tiny policy in fp32: with one thread the
batch makes no difference at all; with two it does, in the last bits.) On a GPU the engine steps on while later clips
are still being decoded.

Logprobs. At temperature 1 they are the raw model's (measured: within 4e-6 of the learner's in fp32). At another
temperature they are those of the sampling distribution: the learner must divide its logits by the same number.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from owlcap.data.prompts import vision_token_ids
from owlcap.data.video import VideoLoader
from owlcap.errors import RolloutError
from owlcap.models.load import load_processor
from owlcap.training.buckets import NamedArrays
from owlcap.types import RolloutFailure, RolloutGroup
from rollout.inputs import ClipSource, PreparedQueue, PreparedRequest, RequestPreparer
from rollout.sampling import completions_of, sampling_params
from rollout.settings import EngineCounters, GenerationRequest, RolloutEngineSettings
from rollout.startup import start_vllm
from rollout.transfer import Received, check_received, finish_update, start_update
from rollout.weights import check_all_loaded, reload_weights

if TYPE_CHECKING:
    from vllm import RequestOutput

Result = RolloutGroup | RolloutFailure


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A group whose completions are being generated."""

    position: int  # of its request among those of the call
    prepared: PreparedRequest
    admitted_at: float

    @property
    def num_sequences(self) -> int:
        return self.prepared.request.sampling.num_completions


class VllmEngine:
    """The policy, ready to caption. One engine a process.

    Args:
        settings: the model and how it runs.
        clips: where frames come from; by default a VideoLoader of its own.

    Raises:
        ModelError: the model folder cannot be used.
        RolloutError: the process's environment is not an engine's (see `rollout.environment`).
    """

    def __init__(self, settings: RolloutEngineSettings, clips: ClipSource | None = None) -> None:
        self._settings = settings
        clips = clips or VideoLoader(settings.video, settings.motion)  # its processes start while vLLM is imported
        self._llm = start_vllm(settings)
        self._vllm = self._llm.llm_engine
        processor = load_processor(settings.model, settings.video)
        self._banned_ids = vision_token_ids(processor)
        # A copy, since the preparer's threads use the other one at the same time.
        self._tokenizer = deepcopy(processor.tokenizer)
        self._preparer = RequestPreparer(
            self._vllm.renderer, processor, clips, settings.max_prompt_tokens, settings.video.num_workers
        )
        self._deterministic = settings.device == "cpu"
        self._request_ids = itertools.count()
        self._version: int | None = 0
        self._sleeps = False
        self._received: list[Received] = []  # by vLLM's workers, in a transfer that is not committed yet
        self._num_groups = self._num_failures = self._num_tokens = 0
        self._generate_s = 0.0

    @property
    def version(self) -> int:
        """Policy version of the weights in the engine; 0 is what was on disk.

        Raises:
            RolloutError: the engine sleeps, or the last load failed half-way.
        """
        if self._version is None:
            raise RolloutError(
                "the engine sleeps" if self._sleeps else "the engine holds half-loaded weights",
                cure="load a complete set of weights, or restart the engine",
            )
        return self._version

    @property
    def counters(self) -> EngineCounters:
        """What has been done so far."""
        return EngineCounters(
            num_decoded=self._preparer.num_decoded,
            num_processed=self._preparer.num_processed,
            num_groups=self._num_groups,
            num_failures=self._num_failures,
            num_tokens=self._num_tokens,
            generate_s=self._generate_s,
        )

    def generate(self, requests: Sequence[GenerationRequest], version: int | None = None) -> list[Result]:
        """All results, in the order of the requests. See `stream`."""
        results = dict(self.stream(requests, version))
        return [results[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[GenerationRequest], version: int | None = None) -> Iterator[tuple[int, Result]]:
        """Yield (position of the request, result) as each group finishes.

        A group's `prompt` is its Prompt, or None when the request does not want it.

        Raises:
            RolloutError: the engine's policy version is not `version`, sampling settings make no sense, or vLLM
                ended a request in an unknown way.
        """
        if self.version != (self.version if version is None else version):
            raise RolloutError(
                f"the engine's weights are those of policy version {self.version}, not {version}",
                cure="sync the weights before generating",
            )
        self._check_idle("another call of this engine is still being read")
        if self._deterministic:
            self._forget_computed()
        queue = self._preparer.prepare_all(requests)
        flights: dict[str, _InFlight] = {}
        started = time.perf_counter()
        try:
            while queue or flights:
                yield from self._admit(queue, flights, len(requests))
                if flights:
                    for output in self._vllm.step():
                        flight = flights.pop(output.request_id)
                        yield flight.position, self._group(flight, cast("RequestOutput", output))
        finally:
            self._generate_s += time.perf_counter() - started
            queue.cancel()
            if flights:  # the caller stopped early, or something failed
                self._vllm.abort_request(list(flights))

    def load_weights(self, buckets: Iterable[NamedArrays], version: int) -> None:
        """Replace the policy's weights and forget everything computed with the old ones.

        Args:
            buckets: lists of (checkpoint name, array); bfloat16 as its bit patterns in uint16. All of the model's
                weights, lm_head.weight included also where it is tied.
            version: what completions from now on are marked with.

        Raises:
            RolloutError: a weight is missing, or groups are being generated.
        """
        self._check_idle("weights cannot change while groups are being generated")
        self._version = None
        if self._sleeps:
            self._llm.wake_up(tags=["weights"])  # memory for them, nothing in it
        if self._settings.tensor_parallel > 1:  # other processes: the weights are sent, not fetched there
            buckets = list(buckets)
        missing = self._llm.collective_rpc(partial(reload_weights, buckets=buckets))
        check_all_loaded(missing, version)
        if self._sleeps:  # only now, when no second copy of the weights is held any more
            self._llm.wake_up(tags=["kv_cache"])
            self._sleeps = False
        self._forget_computed()
        self._version = version

    def sleep(self) -> None:
        """Give the GPU's memory to others, weights and all; the next `load_weights` wakes the engine.

        Raises:
            RolloutError: groups are being generated.
        """
        self._check_idle("an engine that generates cannot sleep")
        self._version = None
        self._llm.sleep(level=2)
        self._sleeps = True

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Join the learner's NCCL group (see rollout.transfer)."""
        self._llm.init_weight_transfer_engine({"init_info": dict(init_info)})

    def start_weight_update(self) -> None:
        """Begin a transfer.

        Raises:
            RolloutError: groups are being generated.
        """
        self._check_idle("weights cannot change while groups are being generated")
        self._version, self._received = None, []
        self._llm.collective_rpc(start_update)

    def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Receive weights, while the learner sends them."""
        self._llm.update_weights({"update_info": dict(update_info)})

    def finish_weight_update(self) -> None:
        """All weights have come."""
        self._received = self._llm.collective_rpc(finish_update)

    def commit_weights(self, checksum: int, version: int) -> None:
        """Use what was received, if it is what was sent, and forget everything computed with the old weights.

        Args:
            checksum: of what was sent.
            version: what completions from now on are marked with.

        Raises:
            RolloutError: other weights came, or not for every layer; the engine then has no version.
        """
        check_received(self._received, checksum)
        check_all_loaded([list(one.missing) for one in self._received], version)
        self._forget_computed()
        self._version = version

    def close(self) -> None:
        """End the decoder processes and the engine."""
        self._preparer.close()
        self._vllm.engine_core.shutdown()

    def _check_idle(self, what: str) -> None:
        if self._vllm.has_unfinished_requests():
            raise RolloutError(what, cure="take or close its results first")

    def _forget_computed(self) -> None:
        """Empty vLLM's caches of video features and of prompt prefixes.

        Both: with one of them alone vLLM answers from stale features, or hangs on an encoder cache miss.
        """
        self._vllm.reset_encoder_cache()
        if not self._llm.reset_prefix_cache():
            raise RolloutError("vLLM did not empty its prefix cache", cure="restart the engine")

    def _admit(self, queue: PreparedQueue, flights: dict[str, _InFlight], total: int) -> Iterator[tuple[int, Result]]:
        """Give prepared requests to vLLM while there is room; yield those that failed.

        Twice what vLLM runs at a time is let in, so that a finished sequence is replaced at once.
        """
        room = 2 * self._settings.rollout.max_num_seqs - sum(f.num_sequences for f in flights.values())
        while queue and (room > 0 or not flights):
            if not (self._deterministic or queue.next_is_ready or not flights):
                return
            position = total - len(queue)
            prepared = queue.take()
            if isinstance(prepared, PreparedRequest):
                prepared = self._add(position, prepared, flights)
            if isinstance(prepared, RolloutFailure):
                self._num_failures += 1
                yield position, prepared
            else:
                room -= prepared.num_sequences

    def _add(
        self, position: int, prepared: PreparedRequest, flights: dict[str, _InFlight]
    ) -> _InFlight | RolloutFailure:
        from vllm.exceptions import VLLMValidationError

        request, request_id = prepared.request, str(next(self._request_ids))
        room = self._settings.rollout.max_model_len - len(prepared.prompt.token_ids)
        params = sampling_params(request.sampling, self._banned_ids, room)
        try:
            self._vllm.add_request(request_id, prepared.engine_input, params)
        except VLLMValidationError as error:  # this prompt does not fit the engine, e.g. too many video tokens
            return RolloutFailure(request.sample, "PromptError", str(error))
        flights[request_id] = _InFlight(position, prepared, time.perf_counter())
        return flights[request_id]

    def _group(self, flight: _InFlight, output: RequestOutput) -> RolloutGroup:
        prepared = flight.prepared
        completions = completions_of(output.outputs, self._decode, self.version)
        self._num_groups += 1
        self._num_tokens += sum(len(completion.token_ids) for completion in completions)
        return RolloutGroup(
            sample=prepared.request.sample,
            completions=completions,
            prompt=prepared.prompt if prepared.request.return_prompt else None,
            num_prompt_tokens=len(prepared.prompt.token_ids),
            decode_s=prepared.decode_s,
            generate_s=time.perf_counter() - flight.admitted_at,
        )

    def _decode(self, token_ids: list[list[int]]) -> list[str]:
        return self._tokenizer.batch_decode(token_ids, skip_special_tokens=True)
