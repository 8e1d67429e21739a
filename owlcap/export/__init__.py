"""`owlcap export`: a run, a checkpoint or a model folder as a checked Hugging Face folder."""

from owlcap.export.check import CheckFigures
from owlcap.export.folder import ExportReport, export

__all__ = ["CheckFigures", "ExportReport", "export"]
