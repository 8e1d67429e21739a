"""A comparison of rewards as text."""

from __future__ import annotations

from owlcap.evaluation.compare import TAG_METRICS, Comparison, Disagreement, PairFigures, RewardFigures
from owlcap.evaluation.table import align


def comparison_text(comparison: Comparison) -> str:
    """Tables of the rewards, the pairs, the shifts by tag, and the captions they disagree about."""
    parts = [
        align(
            [
                ("reward", "mean", "length, in groups", "length, all", "scored", "unscored"),
                *map(_alone, comparison.rewards),
            ]
        ),
        align(
            [
                ("judge of", "requests", "cached", "input tokens", "output tokens", "USD"),
                *map(_cost, comparison.rewards),
            ]
        ),
        align(
            [("pair", "Spearman, in groups", "all", "Kendall, in groups", "all", "sign changes", "groups", "captions")]
            + [_pair(pair) for pair in comparison.pairs]
        ),
    ]
    if any(pair.shifts for pair in comparison.pairs):
        header = ("shift, second - first", *(name.replace("_", " ") for name in TAG_METRICS))
        parts.append(align([header, *map(_shifts, comparison.pairs)]))
    reasons = [
        f"{one.name} left {count} unscored: {why}" for one in comparison.rewards for why, count in one.unscored.items()
    ]
    if reasons:
        parts.append(reasons)
    if comparison.disagreements:
        parts.append(["captions whose advantages differ most"])
        parts += [_disagreement(one) for one in comparison.disagreements]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _alone(one: RewardFigures) -> tuple[str, ...]:
    shown = (_number(one.mean), _number(one.length_within), _number(one.length))
    return (one.name, *shown, str(one.num_scored), str(sum(one.unscored.values())))


def _cost(one: RewardFigures) -> tuple[str, ...]:
    usage = one.usage
    counts = (usage.num_requests, usage.num_cached, usage.input_tokens, usage.output_tokens)
    return (one.name, *map(str, counts), f"{usage.usd:.4f}")


def _pair(pair: PairFigures) -> tuple[str, ...]:
    shown = (pair.spearman_within, pair.spearman, pair.kendall_within, pair.kendall, pair.sign_changes)
    return (_name(pair), *map(_number, shown), str(pair.num_ranked), str(pair.num_captions))


def _shifts(pair: PairFigures) -> tuple[str, ...]:
    return (_name(pair), *(f"{pair.shifts[name]:+.3f}" if name in pair.shifts else "-" for name in TAG_METRICS))


def _disagreement(one: Disagreement) -> list[str]:
    sides = zip((one.first, one.second), one.scores, one.advantages, strict=True)
    return [
        f"{one.id}: " + ", ".join(f"{name} {score:.3f} (advantage {a:+.2f})" for name, score, a in sides),
        f"  caption:   {_short(one.caption)}",
        f"  reference: {_short(one.reference)}",
    ]


def _name(pair: PairFigures) -> str:
    return f"{pair.first}, {pair.second}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"
