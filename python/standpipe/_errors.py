"""What goes wrong."""


class StandpipeError(Exception):
    """Of this package."""


class Unreachable(StandpipeError):
    """No job manager answers there, or one that cannot answer now."""


class Refused(StandpipeError):
    """The job manager does not do what it was asked for; `errors` has one line per problem."""

    def __init__(self, status, errors):
        super().__init__("\n".join(errors))
        self.status = status
        self.errors = errors


class NotFound(Refused):
    """There is no such job, sink or path."""


class JobFailed(StandpipeError):
    """The job has failed, or was cancelled while somebody waited for its rows; `state` says which, `cause` why."""

    def __init__(self, state, cause):
        super().__init__(f"the job is {state}" + (f": {cause}" if cause else ""))
        self.state = state
        self.cause = cause
