"""The lane for programs: frames of many messages, in sessions that outlive their connections."""
