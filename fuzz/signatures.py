"""When two failures are the same finding."""

from pathlib import Path

__all__ = ["signature"]


def signature(error: BaseException) -> str:
    """Class of the error, and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "nowhere"
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{code.co_name}:{trace.tb_lineno}"
    return f"{type(error).__name__} at {place}"
