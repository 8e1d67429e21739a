"""The run report: one HTML file of a run's curves, captions and judgements."""

from owlcap.evaluation.run_report.choosing import parse_steps
from owlcap.evaluation.run_report.write import ReportOptions, WrittenReport, write_run_report

__all__ = ["ReportOptions", "WrittenReport", "parse_steps", "write_run_report"]
