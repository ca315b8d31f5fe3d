"""The only room that starts the kopia binary."""
