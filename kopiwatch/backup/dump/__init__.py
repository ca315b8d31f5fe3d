"""Database dumps: taken inside the member, before anybody is stopped."""
