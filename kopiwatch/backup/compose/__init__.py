"""The files of a Compose project: which there are, which may be read, and what they name."""
