"""The shipped fakes: in-memory Docker and Kopia behind the same Protocols."""
