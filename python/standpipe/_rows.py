"""Rows of a job, asked for some at a time. Of a sink `collect` none is lost when the manager is away for a moment; of any other node they are those that pass meanwhile."""

import re
import secrets
import time

import pyarrow

from ._errors import JobFailed, NotFound, StandpipeError, Unreachable

# Milliseconds that the manager waits for rows before it says that there are none.
_WAIT = 1000
# Seconds that one who does not answer is asked again.
_PATIENCE = 30
_PAUSE = 0.25
# Rows of a node that are asked for at a time.
_MOST_ROWS = 100_000


class Rows:
    """Batches of rows, as they come: iterate over them, or have all at once by `to_arrow` and `to_pandas`. Each can be read once.

    `dropped` counts rows of a node that have passed and are not here, because they came faster than they were asked for; of a sink `collect` there are none. `gap` says that more of them are
    missing in between, and how many is not known: the job was started again, or the manager did not answer for a while.
    """

    def __init__(self, job, http, path, node, limit, timeout):
        told = http.json("GET", path)
        self._job, self._http, self._left = job, http, limit
        if limit is None and timeout is None and not told.get("bounded"):
            raise ValueError("the job does not end by itself: say how many rows are wanted at the most (limit), or how long to wait for them (timeout)")
        if limit is not None and limit < 1:
            raise ValueError("limit: expected one row or more")
        name, is_sink = _node(told, node)
        self._path = f"/v1{path}/collect/{name}" if is_sink else f"/v1{path}/collect"
        # Who looks at a node has an id, by which one question goes on where the last one ended.
        self._look = None if is_sink else f"node={name}&tap={secrets.token_hex(16)}"
        self.dropped, self.gap, self._had = 0, False, False
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cursor, self._ended, self._waiting, self._schema = "", False, [], None

    @property
    def schema(self):
        """Their columns; waits until the job has begun."""
        while self._schema is None:
            self._ask()
            if self._schema is not None:
                break
            status = self._job.status()
            if self._ended:
                raise JobFailed(status.state, status.cause or "it has ended before it has given rows")
            if self._is_late():
                raise TimeoutError(f"the job has not begun to give rows: it is {status.state}" + (f" ({status.cause})" if status.cause else ""))
        return self._schema

    def __iter__(self):
        self.schema  # noqa: B018, until there is something
        while self._left != 0:
            if self._waiting:
                batch = self._waiting.pop(0)
                if self._left is not None:
                    batch = batch.slice(0, self._left)
                    self._left -= batch.num_rows
                yield batch
            elif self._ended:
                status = self._job.status()
                if status.state == "FAILED":
                    raise JobFailed(status.state, status.cause)
                return
            elif self._is_late():
                return
            else:
                self._ask()

    def to_arrow(self):
        """All of them as a `pyarrow.Table`."""
        return pyarrow.Table.from_batches(list(self), self.schema)

    def to_pandas(self, **options):
        """All of them as a `pandas.DataFrame` that keeps every type: its columns are Arrow's (`pandas.ArrowDtype`). Options are those of `pyarrow.Table.to_pandas`;
        `types_mapper=None` gives pandas' own types."""
        if "types_mapper" not in options:
            import pandas

            options["types_mapper"] = pandas.ArrowDtype
        return self.to_arrow().to_pandas(**options)

    def _is_late(self):
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _ask(self):
        wait = _WAIT
        if self._deadline is not None:
            wait = max(0, min(wait, int((self._deadline - time.monotonic()) * 1000)))
        if self._look is None:
            question = f"wait={wait}{self._cursor}"
        else:
            limit = _MOST_ROWS if self._left is None else max(1, min(self._left, _MOST_ROWS))
            last = self._left is not None and self._left <= _MOST_ROWS
            question = f"{self._look}&timeout={wait}&limit={limit}&last={str(last).lower()}"
        (headers, body), repeated = self._persist(f"{self._path}?{question}")
        self._ended = headers.get("standpipe-ended") == "true"
        self.dropped += int(headers.get("standpipe-dropped", 0))
        if self._look is not None and self._had and (repeated or headers.get("standpipe-opened") == "true"):
            # Rows of an answer that was lost are not given again.
            self.gap = True
        if not body:
            return
        with pyarrow.ipc.open_stream(body) as reader:
            self._schema = reader.schema
            self._waiting.extend(batch for batch in reader if batch.num_rows > 0)
            self._had = self._had or bool(self._waiting)
        if self._look is None:
            self._cursor = f"&from={int(headers['standpipe-next'])}&place={headers['standpipe-place']}"

    def _persist(self, path):
        """The answer, and whether it was asked for more than once."""
        begun, repeated = time.monotonic(), False
        while True:
            try:
                return self._http.bytes("GET", path), repeated
            except Unreachable:
                if self._is_late() or time.monotonic() - begun >= _PATIENCE:
                    raise
                repeated = True
                time.sleep(_PAUSE)


def _node(told, wanted):
    """The node that is meant, and whether it is a sink of the connector collect; without a name, the only one of those."""
    paths = [vertex["name"] for vertex in told["vertices"]]
    sinks = [vertex["name"].partition("sinks.")[2] for vertex in told["vertices"] if vertex.get("collects")]
    if wanted is None:
        if len(sinks) == 1:
            return sinks[0], True
        if not sinks:
            raise NotFound(404, [f"the job has no sink of the connector collect: name the node whose rows are wanted: {', '.join(paths)}"])
        raise StandpipeError(f"the job has several sinks of the connector collect, name one: {', '.join(sinks)}")
    sink = wanted.removeprefix("sinks.")
    if sink in sinks:
        return sink, True
    names = [name for path in paths for name in (path, path.partition(".")[2])]
    if re.fullmatch(r"[A-Za-z0-9._-]+", wanted) and any(wanted == name or wanted.startswith(f"{name}.") for name in names):
        return wanted, False
    raise NotFound(404, [f"the job has no node {wanted!r}: it has {', '.join(paths)}"])
