"""What every pipeline shares: parameters, progress, failures, reports, and how a run starts and ends.

Standard library only, so that a pipeline can refuse wrong parameters, and stop when told to,
before its environment's heavy packages are imported, or if they cannot be.
"""

from sluice_pipeline.events import Events
from sluice_pipeline.failure import Failure
from sluice_pipeline.params import Param, choice, flag, folder, integer, number, path, refused, structure, text
from sluice_pipeline.report import ParityReport, limits_of
from sluice_pipeline.shell import Job, Pipeline, run, run_beside

__all__ = [
    "Events",
    "Failure",
    "Job",
    "Param",
    "ParityReport",
    "Pipeline",
    "choice",
    "flag",
    "folder",
    "integer",
    "limits_of",
    "number",
    "path",
    "refused",
    "run",
    "run_beside",
    "structure",
    "text",
]
