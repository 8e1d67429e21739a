"""What tests do with a judge cache, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from owlcap.config import CacheSection
from rewards.cache import Reply, ReplyCache

ROOT = Path(__file__).resolve().parents[3]


def opened(path: Path, **changes: float) -> ReplyCache:
    return ReplyCache(CacheSection.model_validate({"path": str(path), **changes}))


def put(cache: ReplyCache, *keys: str, text: str = "yes") -> None:
    for key in keys:
        cache.put(key, Reply(text, f"chat-{key}"), model="m", kind="units")


def filled(path: Path, *keys: str, text: str = "yes") -> None:
    cache = opened(path)
    put(cache, *keys, text=text)
    cache.close()


def python(code: str, *arguments: object, user: int | None = None) -> subprocess.Popen[str]:
    """A process that runs this code beside us; as another user where we are root, who may write everywhere."""
    head = [
        "import os, sys",
        "from owlcap.config import CacheSection",
        "from rewards.cache import Reply, ReplyCache",
        f"os.setuid({user})" if user is not None and os.getuid() == 0 else "",
        "cache = ReplyCache(CacheSection(path=sys.argv[1]))",
    ]
    command = [sys.executable, "-c", "\n".join([*head, code]), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip(), err
