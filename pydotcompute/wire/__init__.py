"""Conversions between the runtime's objects and protobuf, which server and client share."""
