"""What judging costs a rollout: the staged protocol with its cache against the released joint protocol.

    python benchmarks/judge_cost.py [--captions FILE] [--thinking 0 1000 2000 3000] [--groups 6]

Groups of 8 captions are scored by the whole suite over HTTP; the server is tools/judge_server.py, which answers each
prompt as a judge would (units are a caption's clauses) and counts tokens by the split that Qwen's tokenizer begins
with. So what is compared is the protocols' prompts and replies, on equal units.

--captions FILE takes a JSONL of captions (the first of `caption`, `reference`, `text` that a row has, or the string it
is), or DREAM-1K's annotations. Without it, captions are made of the labelled English set. Either way rows are put
together to references of --words words, as in HMD-270K; a group's captions are the reference with a quarter of its
clauses taken from others, so that all differ.

The released protocol thinks before its joint reply. For how long depends on the judge's model and is an assumption
here: --thinking names the lengths, in tokens, to be shown; 0 is a joint judge that does not think. The staged protocol
asks for its replies by schema, which leaves no room for thinking. "new" leaves out tokens that a prefix cache reuses.
Money counts an output token as 4 input tokens.
Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from owlcap.config import CacheSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.types import RewardBreakdown, Sample
from rewards.chat import Usage
from rewards.labelled import read_rows
from rewards.suite import make_suite
from rewards.text import words
from tools.judge_server import MODEL, Behaviour, JudgeServer, clauses

GROUP_SIZE = 8
OUTPUT_PRICE = 4.0  # of an output token, in input tokens
FLOOR = 0.6
FIELDS = ("caption", "reference", "text")


def main() -> None:
    """Score the same groups by both protocols and compare what was sent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, help="JSONL; default: made of the labelled English set")
    parser.add_argument("--thinking", type=int, nargs="+", default=[0, 1000, 2000, 3000], help="tokens; see above")
    parser.add_argument("--words", type=int, default=220, help="of a reference")
    parser.add_argument("--groups", type=int, default=6)
    arguments = parser.parse_args()
    texts = read_captions(arguments.captions) if arguments.captions else labelled_references()
    groups = make_groups(texts, arguments.words, arguments.groups)
    num_rollouts = len(groups) * GROUP_SIZE
    lengths = [len(words(sample.reference)) for sample, _ in groups]
    units = [len(clauses(sample.reference)) for sample, _ in groups]
    print(
        f"{len(groups)} groups of {GROUP_SIZE}; a reference has {sum(lengths) / len(groups):.0f} words and "
        f"{sum(units) / len(groups):.0f} units\n"
    )
    rows = {"staged": spend(groups, "staged", 0)}
    rows |= {f"joint, thinks {n}": spend(groups, "joint", n) for n in arguments.thinking}
    figures = {name: per_rollout(usage, num_rollouts) for name, usage in rows.items()}
    staged = figures["staged"]
    print(
        "| a rollout | calls | input | of it reusable | output | tokens | money | staged/this, tokens | new | money |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, f in figures.items():
        f["staged_tokens_share"] = staged["tokens"] / f["tokens"]
        f["staged_new_share"] = (staged["tokens"] - staged["reusable"]) / (f["tokens"] - f["reusable"])
        f["staged_money_share"] = staged["money"] / f["money"]
        print(
            f"| {name} | {f['calls']:.2f} | {f['input']:.0f} | {f['reusable']:.0f} | {f['output']:.0f} | "
            f"{f['tokens']:.0f} | {f['money']:.0f} | {f['staged_tokens_share']:.2f} | {f['staged_new_share']:.2f} | "
            f"{f['staged_money_share']:.2f} |"
        )
    bounds = {name: thinking_at(staged[name], figures, name) for name in ("tokens", "money")}
    print(
        f"\nAt most {FLOOR:.0%} of the joint protocol's tokens where that thinks for {bounds['tokens']:.0f} tokens or "
        f"more, of its money (1:{OUTPUT_PRICE:.0f}) where it thinks for {bounds['money']:.0f} or more."
    )
    print(json.dumps({"benchmark": "judge_cost", "figures": figures, "thinking_for_floor": bounds}))


def thinking_at(staged: float, figures: dict[str, dict[str, float]], measure: str) -> float:
    """Thinking tokens from which staged costs no more than FLOOR of joint: thinking adds to one linearly."""
    name, joint = next((name, f) for name, f in figures.items() if name.startswith("joint"))
    price = OUTPUT_PRICE if measure == "money" else 1.0
    thought = float(name.rpartition(" ")[2])
    return max(0.0, thought + (staged / FLOOR - joint[measure]) / price)


def spend(groups: Sequence[tuple[Sample, list[str]]], mode: Literal["staged", "joint"], thinking: int) -> Usage:
    """What scoring all groups took."""
    with JudgeServer(Behaviour(thinking_tokens=thinking)) as server:
        settings = RewardsSection(
            terms=(RewardTerm(name="cser"),),
            cser=CserSection(mode=mode),
            judge=JudgeSection(kind="openai", model=MODEL, base_urls=(server.url,), concurrency=4),
            cache=CacheSection(enabled=False),  # replies are remembered in the process all the same
        )
        return asyncio.run(score_all(settings, groups))


async def score_all(settings: RewardsSection, groups: Sequence[tuple[Sample, list[str]]]) -> Usage:
    """Score groups one after another."""
    suite = make_suite(settings)
    try:
        for sample, captions in groups:
            scored = await suite.score_group(sample, captions)
            assert all(isinstance(one, RewardBreakdown) for one in scored), scored
        return suite.usage
    finally:
        await suite.close()


def per_rollout(usage: Usage, num_rollouts: int) -> dict[str, float]:
    """Calls, tokens and money (in input tokens) of one rollout."""
    inputs, outputs = usage.input_tokens / num_rollouts, usage.output_tokens / num_rollouts
    return {
        "calls": usage.num_requests / num_rollouts,
        "input": inputs,
        "reusable": usage.input_tokens_reused / num_rollouts,
        "output": outputs,
        "tokens": inputs + outputs,
        "money": inputs + OUTPUT_PRICE * outputs,
    }


def make_groups(texts: Sequence[str], num_words: int, num_groups: int) -> list[tuple[Sample, list[str]]]:
    """References of about `num_words` words, each with 8 captions that share most of its clauses."""
    draw = random.Random(0)
    groups: list[tuple[Sample, list[str]]] = []
    for number in range(num_groups):
        pieces = joined(draw, texts, num_words)
        others = joined(draw, texts, num_words)
        captions = [varied(draw, pieces, others) for _ in range(GROUP_SIZE)]
        groups.append((Sample(f"clip-{number}", "", "", "", as_text(pieces)), captions))
    return groups


def joined(draw: random.Random, texts: Sequence[str], num_words: int) -> list[str]:
    """Clauses of texts drawn until there are enough words."""
    pieces: list[str] = []
    while sum(len(words(piece)) for piece in pieces) < num_words:
        pieces += clauses(draw.choice(texts))
    return list(dict.fromkeys(pieces))


def varied(draw: random.Random, pieces: Sequence[str], others: Sequence[str]) -> str:
    """A caption of as many clauses: a quarter are another text's."""
    return as_text([draw.choice(others) if draw.random() < 0.25 else piece for piece in pieces])


def as_text(pieces: Sequence[str]) -> str:
    """Clauses as sentences."""
    return " ".join(f"{piece[0].upper()}{piece[1:]}." for piece in pieces)


def labelled_references() -> list[str]:
    """References of the labelled English set."""
    return [row.reference for row in read_rows() if row.world == "english"]


def read_captions(file: Path) -> list[str]:
    """One caption a line of a JSONL, a DREAM-1K annotation among others."""
    found: list[str] = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        if isinstance(row, dict) and "messages" in row:  # DREAM-1K's form
            row = row["messages"][-1]["content"][0]
        text = row if isinstance(row, str) else next((row[name] for name in FIELDS if row.get(name)), None)
        if text is None:
            raise SystemExit(f"{file}: a row without a caption; fields looked for: {', '.join(FIELDS)}")
        found.append(text)
    return found


if __name__ == "__main__":
    main()
