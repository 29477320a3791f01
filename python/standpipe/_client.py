"""Sessions and jobs."""

import hashlib
import pathlib
import re
import time
from dataclasses import dataclass
from typing import Optional

from ._errors import JobFailed, Refused
from ._http import Http
from ._rows import Rows

_TERMINAL = ("FINISHED", "FAILED", "CANCELED")
# Seconds between two looks at a job.
_LOOK = 0.2
# How often files that have gone missing meanwhile are sent again.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Status:
    """How a job does: `RUNNING`, `FINISHED`, `FAILED`, `CANCELED`, ... and, where that is not plain, why."""

    state: str
    cause: Optional[str] = None

    @property
    def is_terminal(self):
        """Whether it stays so for ever."""
        return self.state in _TERMINAL


class Session:
    """A session cluster that runs already, by the address and port of its job manager.

    `token` is the one that it wants, `tls_ca` a file of certificates (PEM) by which it is known: with it, it is spoken to over TLS.
    """

    def __init__(self, address="127.0.0.1", port=8081, *, token=None, tls_ca=None):
        self._http = Http(address, port, token, tls_ca)

    def submit(self, pipeline, *, plugins=(), resources=(), config=None, parallelism=None, restore=None, allow_non_restored_state=False):
        """Submits a pipeline file and gives the job.

        `plugins` are files of plugins that the cluster does not have; `resources` files that the pipeline reads by these relative paths; `config` keys `engine.*`, which count
        where the pipeline says nothing; `restore` is what `standpipe run --restore` takes. Files that the cluster has are not sent again.
        """
        path = pathlib.Path(pipeline)
        text = path.read_bytes()
        contents = {}

        def put(name, content):
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            contents[digest] = content
            return {"path": name, "hash": digest, "bytes": len(content)}

        settings = {key: _text(value) for key, value in (config or {}).items()}
        strange = [key for key in settings if not key.startswith("engine.")]
        if strange:
            raise ValueError(f"config: {strange[0]!r} is no key of the engine: they begin with engine.")
        bundle = {
            "standpipe": self._http.json("GET", "/v1/config")["flink-version"],
            "name": _name(text) or path.stem,
            "pipeline": put(path.name, text),
            "plugins": [put(pathlib.Path(plugin).name, pathlib.Path(plugin).read_bytes()) for plugin in plugins],
            "resources": [put(pathlib.PurePath(one).as_posix(), pathlib.Path(one).read_bytes()) for one in resources],
            "configuration": settings,
            "options": {"parallelism": parallelism, "restore": restore, "allow_non_restored_state": allow_non_restored_state},
        }
        for attempt in range(1, _ATTEMPTS + 1):
            missing = self._http.json("POST", "/v1/blobs/missing", {"hashes": list(contents)})["missing"]
            for digest in missing:
                self._http.bytes("PUT", f"/v1/blobs/{digest}", contents[digest])
            try:
                return self.job(self._http.json("POST", "/v1/jobs", bundle)["jobid"])
            except Refused as error:
                # Another client's clean-up may have come between.
                if error.status != 409 or attempt == _ATTEMPTS:
                    raise

    def job(self, job):
        """A job by its id, or by the handle that `standpipe deploy` gave."""
        return Job(self._http, job["jobid"] if isinstance(job, dict) else job)

    def jobs(self):
        """All jobs that the cluster knows: id to state."""
        return {job["id"]: job["status"] for job in self._http.json("GET", "/jobs")["jobs"]}


class Job:
    """A job of a session cluster."""

    def __init__(self, http, id):
        if not re.fullmatch("[0-9a-f]{32}", id):
            raise ValueError(f"{id!r} is no id of a job: 32 hexadecimal digits")
        self._http = http
        self.id = id
        self._path = f"/jobs/{id}"

    def __repr__(self):
        return f"Job({self.id!r} at {self._http.place})"

    def status(self):
        """How it does now."""
        told = self._http.json("GET", self._path)
        state, cause = told["state"], told.get("waits")
        if state in ("FAILED", "FAILING", "RESTARTING"):
            cause = self._http.json("GET", f"{self._path}/exceptions").get("root-exception")
        return Status(state, cause)

    def wait(self, timeout=None):
        """Its state at its end. Raises `JobFailed` if it failed, `TimeoutError` if it has not ended after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self.status()
            if status.state == "FAILED":
                raise JobFailed(status.state, status.cause)
            if status.is_terminal:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"the job has not ended: it is {status.state}")
            time.sleep(_LOOK)

    def cancel(self):
        """Ends it without a savepoint. One that has ended is left as it is."""
        if not self.status().is_terminal:
            self._http.json("PATCH", f"{self._path}?mode=cancel")

    def stop(self):
        """Ends it with a savepoint, and gives what `restore` takes to go on from it. The job runs on if none can be taken."""
        trigger = self._http.json("POST", f"{self._path}/stop", {"drain": False})["request-id"]
        while True:
            told = self._http.json("GET", f"{self._path}/savepoints/{trigger}")
            if told["status"]["id"] == "COMPLETED":
                break
            time.sleep(_LOOK)
        operation = told["operation"]
        if "location" not in operation:
            raise Refused(409, [operation.get("failure-cause", {}).get("stack-trace", "no savepoint was taken")])
        while not self.status().is_terminal:
            time.sleep(_LOOK)
        return operation["location"]

    def logs(self):
        """The end of what its processes have written."""
        return self._http.bytes("GET", f"/v1{self._path}/logs")[1].decode(errors="replace")

    def collect(self, node=None, *, limit=None, timeout=None):
        """Rows of a sink of the connector `collect`, from the first that is kept; without a name, of the only one. Of any other node, those that pass from now on: a look, no
        delivery. `transforms.stats` is named so or `stats`, its late rows `stats.late`; of a sink it is what goes into it.

        `limit` is how many at the most, `timeout` how many seconds to wait for them. A job that does not end by itself needs one of them.
        """
        return Rows(self, self._http, self._path, node, limit, timeout)


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(pipeline):
    """What the pipeline is called, if that is said plainly; the cluster reads the file itself."""
    found = re.search(rb"(?m)^name:[ \t]*([\"']?)([^\s\"'#]+)\1[ \t]*(?:#.*)?$", pipeline)
    return found.group(2).decode(errors="replace") if found else None
