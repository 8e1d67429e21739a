"""Weights into an engine: bfloat16 as bit patterns, and no layer left behind unnoticed."""

import logging

import numpy as np
import pytest
import torch

from owlcap.errors import RolloutError
from rollout.weights import LAYER_LOGGER, MODEL_LOGGER, check_all_loaded, reload_weights


class Worker:
    """vLLM's worker: takes tensors, and only logs what did not arrive."""

    def __init__(self, layers: tuple[str, ...] = (), names: frozenset[str] = frozenset()) -> None:
        self.layers, self.names = layers, names
        self.received: dict[str, torch.Tensor] = {}

    def reload_weights(self, weights_iterator) -> None:
        self.received = dict(weights_iterator)
        for layer in self.layers:
            logging.getLogger(LAYER_LOGGER).warning("%s: Failed to load weights", layer)
        if self.names:
            logging.getLogger(MODEL_LOGGER).warning("Following weights were not loaded from checkpoint: %s", self.names)
        logging.getLogger(MODEL_LOGGER).warning("something else")


def test_buckets_arrive_as_tensors_that_share_the_arrays_memory():
    worker, array = Worker(), np.ones((2, 3), np.float32)
    assert reload_weights(worker, [[("a", array)], [("b", np.zeros(4, np.float32))]]) == []
    assert list(worker.received) == ["a", "b"]
    assert worker.received["a"].data_ptr() == array.ctypes.data


def test_bfloat16_travels_as_its_bit_pattern():
    weight = torch.tensor([1.5, -2.0, 3e-5], dtype=torch.bfloat16)
    worker = Worker()
    reload_weights(worker, [[("w", weight.view(torch.uint16).numpy())]])
    assert torch.equal(worker.received["w"], weight)


def test_read_only_arrays_are_taken_without_a_warning(recwarn):
    array = np.ones(3, np.float32)
    array.flags.writeable = False  # as everything in Ray's object store is
    reload_weights(Worker(), [[("a", array)]])
    assert not recwarn.list


def test_layers_that_hold_only_computed_tables_need_no_weights():
    assert reload_weights(Worker(("MRotaryEmbedding", "RotaryEmbedding", "FusedMMInputNorm")), []) == []


def test_other_layers_and_names_without_weights_are_reported():
    worker = Worker(("RMSNorm", "RotaryEmbedding"), frozenset({"lm_head.weight"}))
    assert reload_weights(worker, []) == ["RMSNorm", "lm_head.weight"]


def test_vllms_own_report_is_silenced_and_other_warnings_are_not(caplog):
    with caplog.at_level(logging.WARNING):
        reload_weights(Worker(("RMSNorm",)), [])
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_the_loggers_are_left_as_they_were():
    before = [(logging.getLogger(n).level, list(logging.getLogger(n).filters)) for n in (LAYER_LOGGER, MODEL_LOGGER)]
    reload_weights(Worker(("RMSNorm",)), [])
    after = [(logging.getLogger(n).level, list(logging.getLogger(n).filters)) for n in (LAYER_LOGGER, MODEL_LOGGER)]
    assert before == after


def test_missing_weights_of_any_rank_are_an_error_with_the_cure():
    check_all_loaded([[], []], version=4)
    with pytest.raises(RolloutError, match="policy version 4") as error:
        check_all_loaded([[], ["ParallelLMHead"]], version=4)
    assert error.value.where == "ParallelLMHead"
    assert "policy_state_dict" in str(error.value)
