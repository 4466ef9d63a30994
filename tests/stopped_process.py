"""A child process that stands still: it does nothing any more, while its connections stay as they are."""

import os
import signal
import subprocess
from typing import Any

__all__ = ["stop"]


def stop(process: subprocess.Popen[Any]) -> None:
    """Stop it, and wait until it has stopped: the signal alone leaves it time to answer what comes next."""
    process.send_signal(signal.SIGSTOP)
    stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert stopped is not None
    assert stopped.si_status == signal.SIGSTOP
