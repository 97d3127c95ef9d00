"""What a kernel has of the device that it computes on: its arrays, its stream, its memory. CuPy is imported only
where a kernel asks for a GPU.
"""

from pydotcompute.device.lease import Device, DeviceMemoryError

__all__ = ["Device", "DeviceMemoryError"]
