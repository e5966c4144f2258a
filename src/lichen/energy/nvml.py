"""NVIDIA's management library, through ``ctypes``: the driver brings it, so no Python package is needed.

Rules upheld here:

* Only questions that any user may ask; no setting is ever changed.
* A question the card or the driver does not answer is ``None``, not an error and not a zero.

Source: NVML API Reference, nvmlDeviceGetTotalEnergyConsumption, nvmlDeviceGetPowerUsage,
nvmlDeviceGetComputeRunningProcesses.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from lichen.errors import MeterError

__all__ = ["NvmlDriver"]

LIBRARY: Final = "libnvidia-ml.so.1"
_SUCCESS: Final = 0
_NO_PERMISSION: Final = 4
_NAME_BYTES: Final = 96
_PROCESS_COUNT: Final = 256
_ENFORCED_LIMIT: Final = "nvmlDeviceGetEnforcedPowerLimit"


class _ProcessInfo(ctypes.Structure):
    """``nvmlProcessInfo_t`` of the versioned calls."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_memory_bytes", ctypes.c_ulonglong),
        ("gpu_instance_id", ctypes.c_uint),
        ("compute_instance_id", ctypes.c_uint),
    )


class NvmlDriver:
    """The cards that the driver shows.

    Args:
        library: File name or path of the library.

    Raises:
        MeterError: There is no such library, or it does not start.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library: Any = ctypes.CDLL(library)
        except OSError:
            raise MeterError("no NVIDIA driver is installed.") from None
        status = self._call("nvmlInit_v2")
        if status != _SUCCESS:
            remedy = "Give this user access to /dev/nvidiactl." if status == _NO_PERMISSION else ""
            raise MeterError(f"the NVIDIA management library does not start (code {status}).", remedy=remedy)
        count = ctypes.c_uint(0)
        if self._call("nvmlDeviceGetCount_v2", ctypes.byref(count)) != _SUCCESS or count.value == 0:
            raise MeterError("the NVIDIA driver shows no card.")
        self._handles = [self._handle(index) for index in range(count.value)]

    @property
    def device_count(self) -> int:
        """Cards shown."""
        return len(self._handles)

    def name(self, index: int) -> str:
        """Return the marketing name of a card."""
        buffer = ctypes.create_string_buffer(_NAME_BYTES)
        status = self._call("nvmlDeviceGetName", self._handles[index], buffer, ctypes.c_uint(_NAME_BYTES))
        return buffer.value.decode("utf-8", "replace") if status == _SUCCESS else "NVIDIA GPU"

    def uuid(self, index: int) -> str:
        """Return the identity of a card as CUDA_VISIBLE_DEVICES may name it, or an empty text."""
        buffer = ctypes.create_string_buffer(_NAME_BYTES)
        status = self._call("nvmlDeviceGetUUID", self._handles[index], buffer, ctypes.c_uint(_NAME_BYTES))
        return buffer.value.decode("ascii", "replace") if status == _SUCCESS else ""

    def energy_millijoules(self, index: int) -> int | None:
        """Return the card's energy counter since the driver was loaded; None before the Volta generation."""
        value = ctypes.c_ulonglong(0)
        status = self._call("nvmlDeviceGetTotalEnergyConsumption", self._handles[index], ctypes.byref(value))
        return value.value if status == _SUCCESS else None

    def power_milliwatts(self, index: int) -> int | None:
        """Return the card's power now (on recent cards a running mean over a second)."""
        value = ctypes.c_uint(0)
        status = self._call("nvmlDeviceGetPowerUsage", self._handles[index], ctypes.byref(value))
        return value.value if status == _SUCCESS else None

    def power_limit_milliwatts(self, index: int) -> int | None:
        """Return the power limit in force."""
        value = ctypes.c_uint(0)
        status = self._call(_ENFORCED_LIMIT, self._handles[index], ctypes.byref(value))
        return value.value if status == _SUCCESS else None

    def process_ids(self, index: int) -> frozenset[int] | None:
        """Return the processes that hold a compute context on a card; None when the driver does not say."""
        count = ctypes.c_uint(_PROCESS_COUNT)
        infos = (_ProcessInfo * _PROCESS_COUNT)()
        for function in (
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetComputeRunningProcesses_v2",
        ):
            status = self._call(function, self._handles[index], ctypes.byref(count), infos)
            if status == _SUCCESS:
                return frozenset(infos[slot].pid for slot in range(min(count.value, _PROCESS_COUNT)))
        return None

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        status = self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        if status != _SUCCESS:
            raise MeterError(f"NVIDIA card {index} cannot be opened (code {status}).")
        return handle

    def _call(self, function: str, *arguments: Any) -> int:
        """Call a function of the library; a function it lacks answers like a question the card does not support."""
        try:
            entry = getattr(self._library, function)
        except AttributeError:
            return -1
        return int(entry(*arguments))
