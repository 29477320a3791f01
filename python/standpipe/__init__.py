"""A client of a Standpipe session cluster: submit a pipeline, wait for it, cancel it, collect its rows.

>>> session = Session("127.0.0.1", 8081)                        # doctest: +SKIP
>>> job = session.submit("counts.yaml")                         # doctest: +SKIP
>>> job.collect("counts").to_pandas()                           # doctest: +SKIP

It speaks the job manager's REST interface and nothing else: no binary of Standpipe is needed where it runs.
"""

from ._client import Job, Session, Status
from ._errors import JobFailed, NotFound, Refused, StandpipeError, Unreachable
from ._rows import Rows

__all__ = ["Job", "JobFailed", "NotFound", "Refused", "Rows", "Session", "StandpipeError", "Status", "Unreachable"]
