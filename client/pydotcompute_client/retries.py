"""Which calls gRPC makes again by itself when the connection breaks."""

from __future__ import annotations

import json

from pydotcompute.v1 import kernel_service_pb2

__all__ = ["RETRIES"]

_POLICY = {
    "maxAttempts": 5,  # gRPC allows no more.
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_LAUNCH = {"service": kernel_service_pb2.DESCRIPTOR.services_by_name["KernelService"].full_name, "method": "Launch"}

RETRIES = ("grpc.service_config", json.dumps({"methodConfig": [{"name": [_LAUNCH], "retryPolicy": _POLICY}]}))
"""The option of a channel over which each `LaunchRequest` has a `request_id`: by that, a launch is not done twice."""
