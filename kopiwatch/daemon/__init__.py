"""The sidecar's main process."""

SOCKET = "control.sock"
"""The control socket's name in the state folder."""
