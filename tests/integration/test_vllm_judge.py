"""A real vLLM server with a tiny random text model as the judge: replies by schema go the whole way to a score."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from owlcap.config import CacheSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.types import Judgement, RewardBreakdown, Sample
from rewards.suite import make_suite
from tests.ports import free_port

pytestmark = pytest.mark.slow

MODEL = "tiny-judge"
START_S = 150.0  # only so that a fault fails the test instead of hanging it
MAX_POSITIONS = 16384
TEXTS = ['{"motion":["the man waves"],"detail":["the shirt is red"]}', "Split a caption of a video into units."]
SAMPLE = Sample("clip-1", "a.mp4", "", "", reference="A man waves.")


def make_text_model(folder: Path) -> None:
    """A random Qwen2 of a few hundred thousand parameters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from owlcap.models.tiny import END_OF_TURN, make_tiny_tokenizer

    tokenizer = make_tiny_tokenizer(TEXTS, folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # head_dim 32: vLLM's CPU attention takes no less
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        eos_token_id=tokenizer.get_vocab()[END_OF_TURN],
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server."""
    folder = tmp_path_factory.mktemp("judge")
    make_text_model(folder)
    port = free_port()
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", str(MAX_POSITIONS), "--max-num-seqs", "8"]
    command += ["--structured-outputs-config", '{"backend":"guidance","disable_any_whitespace":true}']
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_replies_by_schema_become_scores(server: str):
    settings = RewardsSection(
        terms=(RewardTerm(name="cser"),),
        judge=JudgeSection(
            kind="openai",
            model=MODEL,
            base_urls=(server,),
            temperature=1.0,
            max_tokens=6000,
            call_deadline_s=100.0,
            max_tries=3,  # a random model may give a reference no unit at all: an invalid reply
        ),
        cache=CacheSection(enabled=False),
        rollout_deadline_s=200.0,
    )

    async def score() -> None:
        suite = make_suite(settings)
        try:
            await suite.check()
            outcomes = await suite.score_group(SAMPLE, ["A man sits.", "A dog barks."])
        finally:
            await suite.close()
        for outcome in outcomes:
            assert isinstance(outcome, RewardBreakdown), outcome
            (judgement,) = outcome.parts["cser"].judgements
            check(judgement)
        assert suite.usage.output_tokens > 0

    asyncio.run(score())


def check(judgement: Judgement) -> None:
    """The evidence of one caption is what a server replied."""
    assert judgement.judge == MODEL
    assert judgement.reference_units
    assert all(unit.text and len(unit.text) <= 200 for unit in judgement.predicted_units + judgement.reference_units)
    assert all(reply_id.startswith("chatcmpl-") for reply_id in judgement.reply_ids)
