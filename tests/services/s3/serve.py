"""Serves moto's S3 on 127.0.0.1 until it is told to end. Called by ../s3.sh with the environment of requirements.txt.

Arguments: the port, 0 for a free one; the file that gets the port once it is bound. What is stored is in memory: it ends with the process.
"""

import pathlib
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def one_create_at_a_time(app):
    """Moto looks whether an object is there and then creates it: of two conditional creates at once both could succeed, which S3 rules out."""
    lock = threading.Lock()

    def call(environ, start_response):
        if "HTTP_IF_NONE_MATCH" not in environ:
            return app(environ, start_response)
        with lock:
            return app(environ, start_response)

    return call


def main() -> None:
    port, file = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    app = one_create_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler)
    ready = file.with_suffix(".new")
    ready.write_text(f"{server.server_port}\n")
    ready.rename(file)
    server.serve_forever()


main()
