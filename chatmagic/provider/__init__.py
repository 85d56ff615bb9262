"""The other end of the wire: the only rooms that meet the server."""
