"""The REST interface, request by request. No proxy is asked: a cluster is reached directly. Redirects are not followed: the token goes nowhere else."""

import http.client
import json
import ssl
import urllib.error
import urllib.request

from ._errors import NotFound, Refused, Unreachable

# Seconds until an answer begins: the manager checks a job as a whole before it takes it.
_ANSWER = 90


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Http:
    """Requests to one job manager."""

    def __init__(self, address, port, token, tls_ca):
        host = f"[{address}]" if ":" in address else address
        self.place = f"{host}:{port}"
        self._base = f"{'https' if tls_ca else 'http'}://{self.place}"
        self._token = token
        handlers = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if tls_ca:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cafile=tls_ca)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def bytes(self, method, path, body=None):
        """The headers and the body of a good answer."""
        headers = {"Content-Type": "application/json" if method == "POST" else "application/octet-stream"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._base + path, data=body, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=_ANSWER) as answer:
                return answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, self._body(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(f"no job manager can be reached at {self.place}: {reason}") from error

    def json(self, method, path, body=None):
        """A good answer that is JSON."""
        text = json.dumps(body).encode() if body is not None else None
        _, answer = self.bytes(method, path, text)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise Unreachable(f"what answers at {self.place} is no job manager: {error}") from error

    @staticmethod
    def _body(error):
        try:
            return error.read()
        except (OSError, http.client.HTTPException):
            return b""

    def _refused(self, status, body):
        try:
            errors = [str(error) for error in json.loads(body)["errors"]]
        except (ValueError, KeyError, TypeError):
            errors = [f"the job manager at {self.place} answers with status {status}"]
        if status == 503:
            return Unreachable("; ".join(errors))
        return (NotFound if status == 404 else Refused)(status, errors)
