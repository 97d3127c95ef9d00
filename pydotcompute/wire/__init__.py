"""What server and client share: errors as statuses, messages as envelopes."""
