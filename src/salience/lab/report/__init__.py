"""The report: one page and its figures, written from a results document. Reads records only and never loads a model."""

from salience.lab.report.page import write_report

__all__ = ["write_report"]
