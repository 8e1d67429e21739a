"""What a command logs: not every request that is tried again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.judge_server import JudgeServer, answer, failure


def test_requests_that_are_tried_again_make_no_noise(tmp_path: Path) -> None:
    server = JudgeServer()
    server.replies = [answer("here"), failure(500), answer("no caption could be read")]
    judge = {"kind": "openai", "model": "m", "base_urls": [server.url], "max_tries": 2}
    settings = {"judge": judge, "cser": {"mode": "joint"}, "terms": [{"name": "cser"}], "cache": {"enabled": False}}
    (tmp_path / "rewards.yaml").write_text(json.dumps(settings))
    (tmp_path / "captions.jsonl").write_text(json.dumps({"id": "a", "reference": "A dog.", "caption": "A cat."}))
    command = [sys.executable, "-m", "owlcap", "score", "captions.jsonl", "--reward", "rewards.yaml"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    finally:
        server.close()
    assert done.returncode == 1, done.stderr  # nothing was scored
    assert "no valid reply in 2 tries" in done.stdout
    assert "retry" not in done.stderr
