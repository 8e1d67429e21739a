"""`owlcap serve-rewards` as a process of its own, spoken to over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.judge_server import JudgeServer, failure

TOKEN = "a-secret"
REFERENCE = "A woman in a red coat opens the door, then walks to the left."
SLOW = """
import asyncio
from pathlib import Path

async def slow(caption, folder):
    Path(folder, "started").touch()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        Path(folder, "cancelled").touch()
        raise
    return 1.0

async def gate(caption, folder):
    Path(folder, "started").touch()
    while not Path(folder, "open").exists():
        await asyncio.sleep(0.01)
    return 1.0
"""


@dataclass
class Server:
    """A running command."""

    url: str
    process: subprocess.Popen[str]
    printed: list[str] = field(default_factory=list)

    def score(self, *captions: str, reference: str = REFERENCE, token: str = TOKEN, **extra: object) -> httpx.Response:
        body = {"groups": [{"id": "clip", "reference": reference, "captions": list(captions)}], **extra}
        return self.post(json.dumps(body).encode(), token)

    def post(self, content: bytes | Iterator[bytes], token: str = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return httpx.post(f"{self.url}/v1/score", content=content, headers=headers, timeout=60)

    def get(self, path: str, token: str = TOKEN) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)


@contextmanager
def serving(rewards: str, folder: Path, *arguments: str, token: str = TOKEN) -> Iterator[Server]:
    config = folder / "rewards.yaml"
    config.write_text(rewards)
    command = [sys.executable, "-m", "owlcap", "serve-rewards", str(config), "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OWLCAP_REWARDS_TOKEN": token, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    printed: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("listening on "):
                break
        else:
            pytest.fail("the server ended before it listened:\n" + "".join(printed))
        threading.Thread(target=printed.extend, args=(process.stdout,), daemon=True).start()
        yield Server(printed[-1].split()[-1], process, printed)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("terms: [{name: cser}, {name: length}]\n", tmp_path_factory.mktemp("serve")) as running:
        yield running


def with_slow(folder: Path, name: str) -> str:
    (folder / "slow.py").write_text(SLOW)
    return f"terms: [{{name: '{folder}/slow.py:{name}', options: {{folder: '{folder}'}}}}]\n"


def test_captions_come_back_scored_with_their_evidence(server: Server) -> None:
    reply = server.score(REFERENCE, "A dog sleeps.")
    assert reply.status_code == 200, reply.text
    (group,) = reply.json()["groups"]
    same, other = group["captions"]
    assert group["id"] == "clip"
    assert same["parts"]["cser"]["value"] == 2.0
    assert same["total"] == pytest.approx(2.0 + same["parts"]["length"]["value"])
    assert other["total"] < same["total"]
    (judgement,) = same["parts"]["cser"]["judgements"]
    assert {unit["label"] for unit in judgement["predicted_units"]} == {"supported"}


def test_evidence_can_be_left_out(server: Server) -> None:
    (group,) = server.score(REFERENCE, evidence=False).json()["groups"]
    assert "judgements" not in group["captions"][0]["parts"]["cser"]


def test_an_empty_reference_is_unscored_and_not_a_zero(server: Server) -> None:
    reply = server.score("A man waves.", reference=" ")
    assert reply.status_code == 200
    (caption,) = reply.json()["groups"][0]["captions"]
    assert caption["total"] is None
    assert caption["unscored"]["reward"] == "cser"
    assert "reference caption is empty" in caption["unscored"]["reason"]


@pytest.mark.parametrize("token", ["-", f"{TOKEN}x"])
@pytest.mark.parametrize("path", ["/metrics", "/ready"])
def test_without_the_token_nothing_is_told(server: Server, token: str, path: str) -> None:
    assert server.score(REFERENCE, token=token).status_code == 401
    assert server.get(path, token=token).status_code == 401
    assert TOKEN not in "".join(server.printed)


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ("{", 422, "JSON"),
        ("[]", 422, "body"),
        ('{"groups": []}', 422, "groups"),
        ('{"groups": [{"captions": ["a"]}]}', 422, "reference"),
        ('{"groups": [{"reference": "a", "captions": []}]}', 422, "captions"),
        ('{"groups": [{"reference": "a", "captions": ["a"], "wieght": 1}]}', 422, "wieght"),
        (json.dumps({"groups": [{"reference": "a", "captions": ["a"] * 513}]}), 413, "at most 512"),
    ],
)
def test_a_bad_request_is_told_where_it_is_bad(server: Server, body: str, status: int, place: str) -> None:
    reply = server.post(body.encode())
    assert reply.status_code == status
    assert place in reply.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_whether_or_not_it_says_its_length(server: Server, chunked: bool) -> None:
    parts = [b'{"groups": [{"reference": "', b"a" * (9 * 2**20), b'", "captions": ["a"]}]}']
    reply = server.post(iter(parts) if chunked else b"".join(parts))
    assert reply.status_code == 413


def test_health_is_open_and_ready_looks_at_the_judges(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert server.get("/ready").json() == {"status": "ready"}


def test_metrics_are_prometheus(server: Server) -> None:
    server.score(REFERENCE)
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}
    outcomes = {sample.labels["outcome"]: sample.value for sample in families["owlcap_captions"].samples}
    assert outcomes["scored"] >= 1
    assert "owlcap_judge_requests" in families
    assert families["owlcap_captions_in_flight"].samples[0].value == 0


def test_the_openapi_document_names_the_route(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert set(document["paths"]) == {"/v1/score", "/ready", "/metrics", "/health"}
    assert "GroupIn" in document["components"]["schemas"]


def test_a_judge_that_fails_leaves_captions_unscored(tmp_path: Path) -> None:
    judge = JudgeServer()
    try:
        judge.replies = [failure(400)]
        settings = f"terms: [{{name: cser}}]\njudge: {{kind: openai, model: m, base_urls: ['{judge.url}']}}\n"
        with serving(settings + "cache: {enabled: false}\n", tmp_path) as server:
            (caption,) = server.score("A man waves.").json()["groups"][0]["captions"]
            assert caption["total"] is None
            assert "BadRequestError" in caption["unscored"]["reason"]
            assert server.get("/ready").status_code == 503
            assert 'outcome="unscored by cser"' in server.get("/metrics").text
    finally:
        judge.close()


def test_above_the_limit_of_captions_the_client_is_asked_to_wait(tmp_path: Path) -> None:
    with serving(with_slow(tmp_path, "gate"), tmp_path, "--max-in-flight", "2") as server:
        first: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: first.append(server.score("a", "b")))
        waiting.start()
        until(tmp_path / "started")
        refused = server.score("c")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        (tmp_path / "open").touch()
        waiting.join()
        assert first[0].status_code == 200
        assert server.score("c").status_code == 200


def test_scoring_stops_when_the_client_hangs_up(tmp_path: Path) -> None:
    with serving(with_slow(tmp_path, "slow"), tmp_path) as server:
        body = {"groups": [{"reference": "a", "captions": ["b"]}]}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/score", json=body, headers=headers, timeout=httpx.Timeout(30, read=2))
        until(tmp_path / "cancelled")


def test_sigterm_lets_a_request_in_flight_end(tmp_path: Path) -> None:
    with serving(with_slow(tmp_path, "gate"), tmp_path) as server:
        got: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: got.append(server.score("a")))
        waiting.start()
        until(tmp_path / "started")
        server.process.send_signal(signal.SIGTERM)
        (tmp_path / "open").touch()
        waiting.join()
        assert got[0].status_code == 200
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("page", ["README.md", "docs/serve-rewards.md"])
def test_the_documented_curl_line_works_as_written(page: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    block = re.search(r"curl -s http://127\.0\.0\.1:8900.*?\}\]\}'", text, re.DOTALL)
    assert block is not None
    with serving("terms: [{name: cser}, {name: length}]\n", tmp_path, token="") as server:
        line = block.group().replace("http://127.0.0.1:8900", server.url)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    good, other = json.loads(done.stdout)["groups"][0]["captions"]
    assert good["parts"]["cser"]["value"] == 2.0
    assert other["total"] < good["total"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "owlcap", "serve-rewards", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_an_open_host_without_a_token_is_refused() -> None:
    done = run("toy_grpo", "--host", "0.0.0.0", "--port", "0", OWLCAP_REWARDS_TOKEN="")
    assert done.returncode == 2
    assert "OWLCAP_REWARDS_TOKEN" in done.stderr


def test_a_port_that_is_taken_is_one_clear_error(server: Server) -> None:
    done = run("toy_grpo", "--port", server.url.rsplit(":", 1)[1])
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def until(file: Path) -> None:
    """Wait for a file that the server's process makes."""
    waiting = threading.Event()
    for _ in range(3000):
        if file.exists():
            return
        waiting.wait(0.01)
    pytest.fail(f"{file.name} did not come")
