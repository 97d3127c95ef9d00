"""The lane for programs: many messages a frame, in sessions that outlive connections."""
