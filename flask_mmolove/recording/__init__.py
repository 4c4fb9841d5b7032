"""How a report comes into the outbox: at once, or with the site's own commit."""
