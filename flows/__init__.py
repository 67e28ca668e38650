"""The Prefect flows: what runs when, on which pool, how often again; and what the Prefect page shows of it.

The work itself is in `tasks`: a flow starts the same stage commands that a person would type.
"""

import logging
from concurrent.futures import CancelledError

from facemill.errors import FacemillError


class _WithoutTraceback(logging.Filter):
    """What a person has to act on is a sentence; Prefect would print where it came from, with each run that it ends.
    `facemill --traceback` shows that once."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], FacemillError | CancelledError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):  # where Prefect logs how runs end
    logging.getLogger(_name).addFilter(_WithoutTraceback())
