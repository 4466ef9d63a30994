"""Choice of the data path: by name, by SOFTNDK_DATAPATH, or the best there is."""

import os

from softndk.datapath.abc import DataPath, Stream, StreamParameters
from softndk.datapath.reference import ReferenceDataPath
from softndk.errors import NotSupported

__all__ = ["DataPath", "Stream", "StreamParameters", "open_datapath"]


def open_datapath(name: str | None) -> DataPath:
    """The data path called `name`; None: what SOFTNDK_DATAPATH says, else the best available.

    Raises: NotSupported: no such data path here; a named one that is missing is never replaced by another.
    """
    wanted = os.environ.get("SOFTNDK_DATAPATH") if name is None else name
    if wanted in (None, "", "python"):
        return ReferenceDataPath()
    source = "datapath=" if name is not None else "SOFTNDK_DATAPATH="
    raise NotSupported(f"open_adapter: {source}{wanted!r}; this installation has 'python' [NOT_SUPPORTED]")
