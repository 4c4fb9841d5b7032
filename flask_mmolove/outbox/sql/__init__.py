"""The outbox in a SQL database, the site's own or another."""
