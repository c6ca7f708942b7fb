"""What schemathesis must not ask: answers that go on for ever."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.query, dict):
        case.query.pop("follow", None)
