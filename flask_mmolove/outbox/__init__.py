"""The durable outbox: an event is a row on disk before anything is sent."""
