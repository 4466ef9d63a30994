"""softndk.drivers.tcp: sockets under a core. Real ones, on loopback."""

import errno
import gc
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from softndk.drivers.engine import ACCEPT_BATCH if False else READ_SIZE  # type: ignore[misc]
