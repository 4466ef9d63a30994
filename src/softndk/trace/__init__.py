"""Traces: streams written as packets that Wireshark understands, and captures read as a list of frames.

Imports `wire` and nothing else of the package.
"""

from softndk.trace.capture import CaptureWriter, StreamTap
from softndk.trace.decode import Direction, Frame, read_frames
from softndk.trace.merge import merge
from softndk.trace.pcapng import TraceError

__all__ = ["CaptureWriter", "Direction", "Frame", "StreamTap", "TraceError", "merge", "read_frames"]
