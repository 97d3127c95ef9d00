"""The device that a kernel computes on, and the kernel's arrays, stream and memory there.

CuPy is imported only when a kernel asks for a GPU.
"""

from pydotcompute.device.lease import Device, DeviceMemoryError

__all__ = ["Device", "DeviceMemoryError"]
