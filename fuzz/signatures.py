"""When two failures are the same finding."""

import re
from pathlib import Path

__all__ = ["signature"]


def signature(error: BaseException) -> str:
    """Class of the error, where it was raised, and what it says without its numbers."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "nowhere"
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{code.co_name}:{trace.tb_lineno}"
    words = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+", "#", str(error))
    text = " ".join(words.split())[:100]
    return f"{type(error).__name__} at {place}: {text}"
