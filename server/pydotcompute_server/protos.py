"""The daemon's own services, as their .proto files declare them. This is the only list of them."""

from __future__ import annotations

from pydotcompute.v1 import (
    client_service_pb2,
    dead_letter_service_pb2,
    kernel_service_pb2,
    message_service_pb2,
    server_service_pb2,
    telemetry_service_pb2,
)

__all__ = ["SERVICES"]

SERVICES = (
    kernel_service_pb2,
    message_service_pb2,
    telemetry_service_pb2,
    dead_letter_service_pb2,
    server_service_pb2,
    client_service_pb2,
)
"""The modules of the daemon's own services. Each declares one."""
