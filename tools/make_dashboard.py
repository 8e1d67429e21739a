"""Write deploy/grafana.json, the dashboard of a run, from the table below.

python tools/make_dashboard.py            write it
python tools/make_dashboard.py --check    fail when it is not what would be written

The metrics are those of owlcap/ray_metrics.py as Ray exports them: with the prefix `ray_`, counters with `_total`.
What each headline figure means, and what to do about it, is in docs/monitoring.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "deploy" / "grafana.json"
COLUMNS, WIDTH, HEIGHT = 3, 8, 8  # panels in a line, and the size of one in Grafana's grid of 24 columns
RUN = '{run=~"$run"}'


@dataclass(frozen=True, slots=True)
class Line:
    """One query of a panel. `label` names its series."""

    query: str
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart; `unit` is Grafana's."""

    title: str
    text: str
    lines: tuple[Line, ...]
    unit: str = "short"
    stacked: bool = False


def gauge(name: str, label: str) -> Line:
    """A metric as it is."""
    return Line(f"ray_owlcap_{name}{RUN}", label)


def rate(name: str, label: str) -> Line:
    """A counter's growth a second, summed over workers."""
    return Line(f"sum by (run) (rate(ray_owlcap_{name}_total{RUN}[5m]))", label)


def worker_rate(name: str, label: str) -> Line:
    """A counter's growth a second of each worker; a restarted worker goes on as the same one."""
    return Line(f"sum by (run, worker) (rate(ray_owlcap_{name}_total{RUN}[5m]))", label)


def quantile(share: float, name: str, label: str) -> Line:
    """A histogram's quantile over all workers."""
    return Line(
        f"histogram_quantile({share}, sum by (run, le) (rate(ray_owlcap_{name}_bucket{RUN}[5m])))",
        label,
    )


ROWS: dict[str, tuple[Panel, ...]] = {
    "Does it learn": (
        Panel(
            "Reward",
            "Should rise, and the held-out reward with it.",
            (
                gauge("reward_mean", "{{run}} training"),
                gauge("eval_reward", "{{run}} held out"),
            ),
        ),
        Panel(
            "CSER",
            "Of sampled training captions, and of greedy held-out ones.",
            (
                gauge("reward_cser", "{{run}} training"),
                gauge("eval_cser", "{{run}} held out"),
            ),
        ),
        Panel(
            "Spread of rewards in a group",
            "Near 0 there is nothing to learn from.",
            (
                gauge("reward_std_in_group", "{{run}} std"),
                gauge("groups_without_variance", "{{run}} groups without any"),
            ),
        ),
        Panel("KL to the reference", "Should grow slowly; a jump is a collapse.", (gauge("kl", "{{run}}"),)),
        Panel(
            "Mismatch of sampler and learner",
            "Near 0: both hold one model.",
            (gauge("mismatch_kl", "{{run}}"),),
            unit="sci",
        ),
        Panel(
            "Rollout correction",
            "A weight near 1, and few tokens cut or left out; all 0 without a correction.",
            (
                gauge("correction_weight", "{{run}} weight"),
                gauge("correction_truncated_share", "{{run}} cut"),
                gauge("correction_rejected_share", "{{run}} left out"),
            ),
        ),
        Panel("Entropy", "Should fall slowly, never to 0.", (gauge("entropy", "{{run}}"),)),
        Panel("Loss", "Its size says little; a jump does.", (gauge("loss", "{{run}}"),)),
        Panel(
            "Gradient",
            "Norm before clipping, and the share of clipped ratios.",
            (
                gauge("grad_norm", "{{run}} norm"),
                gauge("clip_fraction", "{{run}} clipped"),
            ),
        ),
        Panel("Learning rate", "Of the last update.", (gauge("learning_rate", "{{run}}"),), unit="sci"),
        Panel("Completion tokens", "A steady climb is length hacking.", (gauge("completion_tokens", "{{run}}"),)),
        Panel(
            "Truncated and unscored",
            "Shares of the rollouts; both should be near 0.",
            (
                gauge("truncated_share", "{{run}} truncated"),
                gauge("reward_unscored_share", "{{run}} unscored"),
            ),
            unit="percentunit",
        ),
        Panel(
            "Progress",
            "Steps done, and passes over the data.",
            (gauge("step", "{{run}} steps"), gauge("epoch", "{{run}} epochs")),
        ),
    ),
    "Where the time goes": (
        Panel("Seconds a step", "Of the whole step.", (gauge("step_seconds", "{{run}}"),), unit="s"),
        Panel(
            "Timeline",
            "Shares of a step, as the driver waits for them.",
            (gauge("phase_share", "{{run}} {{phase}}"),),
            unit="percentunit",
            stacked=True,
        ),
        Panel(
            "Seconds by phase",
            "The same in seconds.",
            (gauge("phase_seconds", "{{run}} {{phase}}"),),
            "s",
            stacked=True,
        ),
    ),
    "Rollout workers": (
        Panel("Tokens sampled a second", "Of each engine.", (worker_rate("rollout_tokens", "{{run}} {{worker}}"),)),
        Panel(
            "Speed in the last call", "Tokens a second.", (gauge("rollout_tokens_per_second", "{{run}} {{worker}}"),)
        ),
        Panel("Prompts not finished", "Even workers fall together.", (gauge("rollout_queue", "{{run}} {{worker}}"),)),
        Panel(
            "Prompts a second",
            "And those that gave no captions.",
            (
                rate("rollout_prompts", "{{run}} finished"),
                rate("rollout_failures", "{{run}} failed"),
                gauge("failed_prompts", "{{run}} failed in the step"),
            ),
        ),
        Panel(
            "Share of time decoding and generating",
            "Seconds a second, all workers together.",
            (
                rate("rollout_decode_seconds", "{{run}} decoding"),
                rate("rollout_generate_seconds", "{{run}} generating"),
            ),
            unit="s",
        ),
        Panel(
            "Staleness",
            "Updates between sampling and learning, and groups left out for it; 0 but in an async pipeline.",
            (
                gauge("staleness", "{{run}} updates"),
                gauge("stale_groups", "{{run}} groups left out"),
            ),
        ),
        Panel(
            "Policy version and restarts",
            "All workers move together; restarts stay at 0.",
            (
                gauge("rollout_policy_version", "{{run}} {{worker}}"),
                gauge("rollout_restarts", "{{run}} restarts"),
            ),
        ),
    ),
    "Rewards and judges": (
        Panel(
            "Captions a second",
            "Scored, and left without a reward.",
            (
                rate("reward_scored", "{{run}} scored"),
                rate("reward_unscored", "{{run}} unscored"),
            ),
        ),
        Panel("Groups not scored", "Of each reward actor.", (gauge("reward_queue", "{{run}} {{worker}}"),)),
        Panel(
            "Seconds to score a group",
            "Median and 95 %, and the mean.",
            (
                quantile(0.5, "reward_group_seconds", "{{run}} median"),
                quantile(0.95, "reward_group_seconds", "{{run}} 95 %"),
                Line(
                    f"sum by (run) (rate(ray_owlcap_reward_group_seconds_sum{RUN}[5m])) / "
                    f"sum by (run) (rate(ray_owlcap_reward_group_seconds_count{RUN}[5m]))",
                    "{{run}} mean",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Judge requests a second",
            "Retries and failures should be rare.",
            (
                rate("judge_requests", "{{run}} requests"),
                rate("judge_retries", "{{run}} retries"),
                rate("judge_failed", "{{run}} failed questions"),
                rate("judge_cached", "{{run}} from the cache"),
            ),
        ),
        Panel(
            "Judge tokens a second",
            "To and from the servers.",
            (
                rate("judge_input_tokens", "{{run}} input"),
                rate("judge_output_tokens", "{{run}} output"),
            ),
        ),
        Panel("Judge cost a step", "By the prices of the settings.", (gauge("judge_usd", "{{run}}"),), "currencyUSD"),
    ),
    "Learner": (
        Panel(
            "Tokens a second",
            "That each rank's model runs over.",
            (worker_rate("learner_tokens", "{{run}} {{worker}}"),),
        ),
        Panel("Peak memory", "Of each rank.", (gauge("learner_peak_memory_bytes", "{{run}} {{worker}}"),), "bytes"),
        Panel(
            "Updates a second",
            "Skipped ones were not finite; share: seconds a second inside updates.",
            (
                worker_rate("learner_updates", "{{run}} {{worker}} all"),
                worker_rate("learner_skipped_updates", "{{run}} {{worker}} skipped"),
                worker_rate("learner_update_seconds", "{{run}} {{worker}} share"),
            ),
        ),
    ),
}


def dashboard() -> dict[str, object]:
    """The dashboard in Grafana's model."""
    panels: list[dict[str, object]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS * WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "collapsed": False})
        for number, panel in enumerate(row):
            line, column = divmod(number, COLUMNS)
            place = {"x": column * WIDTH, "y": top + 1 + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(chart(panel, len(panels) + 1, place))
        top += 1 + -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "owlcap",
        "title": "owlcap",
        "tags": ["owlcap", "ray"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [variable_datasource(), variable_run()]},
        "panels": panels,
    }


def chart(panel: Panel, number: int, place: dict[str, int]) -> dict[str, object]:
    """One time series panel."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    custom: dict[str, object] = {"lineWidth": 1, "showPoints": "never"}
    if panel.stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "gridPos": place,
        "datasource": source,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": source, "expr": line.query, "legendFormat": line.label}
            for i, line in enumerate(panel.lines)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def variable_datasource() -> dict[str, object]:
    """The choice of a Prometheus."""
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def variable_run() -> dict[str, object]:
    """The choice of runs."""
    return {
        "name": "run",
        "label": "run",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(ray_owlcap_step, run)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> None:
    """Write the file, or compare it."""
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" not in sys.argv[1:]:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
        print(f"wrote {FILE.relative_to(ROOT)}")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"{FILE.relative_to(ROOT)} is not up to date: python tools/make_dashboard.py")


if __name__ == "__main__":
    main()
